"""HTTP bodies of jobs."""

from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, WrapSerializer

from app.artifacts.schemas import ArtifactRead
from app.jobs.examples import (
    ANALYSIS_CREATE_EXAMPLES,
    ANALYSIS_SPEC_EXAMPLE,
    ESTIMATE_EXAMPLE,
    EVENT_EXAMPLE,
    JOB_CREATE_EXAMPLES,
    JOB_READ_EXAMPLE,
    JOB_SPEC_EXAMPLE,
)
from app.jobs.states import JobState
from app.problems import ProblemBody
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.job import Evaluation, InputShapes, Target
from workers.compression.specs.metrics import JobMetrics
from workers.compression.specs.recipe import Recipe
from workers.compression.specs.sensitivity import SensitivityOptions
from workers.compression.specs.step import Contract

Role = Literal["train", "calibration", "selection", "confirmation", "evaluation"]
ARCHIVE: Literal["archive"] = "archive"
Priority = Literal["low", "normal", "high"]
ObjectId = Annotated[str, StringConstraints(min_length=1, max_length=40)]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
LabelValue = Annotated[str, StringConstraints(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Part = TypeVar("Part", bound=BaseModel)
Shown = Annotated[Part, WrapSerializer(lambda value, _: value.model_dump(mode="json", exclude_none=True))]
"""A part whose members that do not apply are left out instead of being null."""


class JobData(Contract):
    """Which dataset plays which role; one dataset may play several, the service then splits its rows."""

    train: ObjectId | None = None
    calibration: ObjectId | None = None
    evaluation: ObjectId | None = None

    def by_role(self) -> dict[Role, str]:
        """The roles that were given."""
        roles: tuple[Role, ...] = ("train", "calibration", "evaluation")
        return {role: dataset for role in roles if (dataset := getattr(self, role)) is not None}


class Execution(Contract):
    """How a job runs."""

    strategy: Literal["single"] = "single"
    world_size: Literal[1] = 1
    timeout_seconds: float = Field(3600.0, gt=0.0, le=7 * 86_400.0, description="Running time before `timeout`.")
    max_pending_seconds: float = Field(
        86_400.0, gt=0.0, le=30 * 86_400.0, description="Time in the queue before `timeout`."
    )
    priority: Priority = "normal"
    max_attempts: int = Field(3, ge=1, le=10, description="Times the job may be started when workers get lost.")


class JobCreate(Contract):
    """A model, some data and a recipe."""

    model_config = ConfigDict(json_schema_extra={"examples": JOB_CREATE_EXAMPLES})

    model: ObjectId
    data: JobData = JobData()
    recipe: Recipe
    target: Target = Target()
    outputs: tuple[ModelFormat | Literal["archive"], ...] = Field(
        (),
        max_length=8,
        description="The model's own format, which is always stored; `archive` adds it entropy-coded (.prsz).",
    )
    evaluation: Evaluation = Evaluation()
    execution: Execution = Execution()
    seed: int = Field(0, ge=0, lt=1 << 32, description="Feeds every random choice; same seed, same artifact.")
    labels: Labels = Field(default_factory=dict)


class RolePart(Contract):
    """The rows of a dataset that one role sees: a half-open interval of a seeded, stratified permutation.

    Rows for ``selection`` and ``confirmation`` are set aside where a step has ``max_drop``: those that a sparsity is
    chosen by, and those that show whether it holds on others.
    """

    dataset: ObjectId
    part: tuple[Share, Share] = (0.0, 1.0)


class Split(Contract):
    """Which rows play which role, and the same as a sentence."""

    seed: int = 0
    roles: dict[Role, RolePart] = Field(default_factory=dict)
    summary: str = Field("", max_length=2000)


class JobSpec(JobCreate):
    """The resolved request: defaults filled in, rows of the data assigned to roles."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB_SPEC_EXAMPLE]})

    split: Split = Split()

    def request(self) -> JobCreate:
        """What was asked for, without what resolving it added."""
        return JobCreate.model_validate(self.model_dump(mode="json", exclude={"split"}))


class AnalysisCreate(SensitivityOptions):
    """How sensitive a model is to the quantization of its weights, one at a time, on some data or made-up inputs."""

    model_config = ConfigDict(json_schema_extra={"examples": ANALYSIS_CREATE_EXAMPLES})

    data: JobData = JobData()
    input_shapes: InputShapes = Field(
        default_factory=dict, description="Fills dynamic axes when inputs have to be made up."
    )
    execution: Execution = Execution()
    seed: int = Field(0, ge=0, lt=1 << 32, description="Feeds every random choice; same seed, same rows.")
    labels: Labels = Field(default_factory=dict)


class AnalysisSpec(AnalysisCreate):
    """The resolved request of an analysis; it has no steps, for it changes nothing."""

    model_config = ConfigDict(json_schema_extra={"examples": [ANALYSIS_SPEC_EXAMPLE]})

    model: ObjectId
    recipe: tuple[()] = ()
    split: Split = Split()

    def request(self) -> AnalysisCreate:
        """What was asked for, without what resolving it added."""
        return AnalysisCreate.model_validate(self.model_dump(mode="json", exclude={"model", "recipe", "split"}))

    def options(self) -> SensitivityOptions:
        """The part of it that the engine is told."""
        return SensitivityOptions(**{name: getattr(self, name) for name in SensitivityOptions.model_fields})


class LabelsPatch(BaseModel):
    """New labels in place of the old ones."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"labels": {"team": "search"}}]})

    labels: Labels


class Progress(BaseModel):
    """Where a job stands."""

    fraction: float = 0.0
    step: str | None = None
    message: str = ""
    eta_seconds: float | None = None


class Queue(BaseModel):
    """The queue a job is or was in; ``position`` counts from 1 and is null once the job has left it."""

    name: str
    position: int | None


class JobRead(BaseModel):
    """A job."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB_READ_EXAMPLE]})

    id: str
    object: Literal["job"] = "job"
    status: JobState
    done: bool
    spec: JobSpec | AnalysisSpec
    progress: Progress
    attempt: int
    queue: Queue
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    outcome: Literal["target_met", "target_missed", "no_improvement", "unconstrained"] | None
    termination_reason: (
        Literal["completed", "budget_exhausted", "deadline", "stalled", "cancel_requested", "worker_lost", "error"]
        | None
    )
    metrics: Shown[JobMetrics] | None = Field(description="Figures that do not apply are left out.")
    warnings: list[str]
    error: Shown[ProblemBody] | None
    artifacts: list[ArtifactRead]
    environment: dict[str, JsonValue] | None
    labels: dict[str, str]


class EventRead(BaseModel):
    """One line of a job's story; ``sequence`` counts 1, 2, 3 … per job without gaps."""

    model_config = ConfigDict(json_schema_extra={"examples": [EVENT_EXAMPLE]})

    id: str
    object: Literal["event"] = "event"
    type: str
    job: str
    sequence: int
    created_at: datetime
    data: dict[str, JsonValue]


class PlannedStep(BaseModel):
    """A step with its defaults filled in, and what it asks of the job."""

    index: int = Field(description="Position in the request's recipe.")
    technique: str
    method: str
    summary: str
    needs: list[str]
    spec: dict[str, Any]


class StepConflict(BaseModel):
    """Two steps that exclude each other in the order given."""

    pointer: str
    steps: tuple[str, str]
    detail: str


class Plan(BaseModel):
    """What a request would do; nothing has been created."""

    object: Literal["plan"] = "plan"
    valid: bool = Field(description="Whether POST /v1/jobs would accept the request as it is.")
    spec: JobSpec
    steps: list[PlannedStep] = Field(description="In an order that works, where there is one.")
    conflicts: list[StepConflict]
    waiting_for: list[str] = Field(description="Inputs still being inspected; checked again when that ends.")
    warnings: list[str]


class Band(BaseModel):
    """A figure with its likely range."""

    low: float
    typical: float
    high: float


class EstimateBasis(BaseModel):
    """What an estimate rests on."""

    parameters: int | None
    size_bytes: int
    similar_jobs: int = Field(description="Finished jobs with the same steps and model format that were averaged.")


class Estimate(BaseModel):
    """What a job would take, from the model's own shape and from similar finished jobs."""

    model_config = ConfigDict(json_schema_extra={"examples": [ESTIMATE_EXAMPLE]})

    object: Literal["estimate"] = "estimate"
    seconds: Band
    peak_memory_bytes: Band
    size_bytes: Band = Field(description="Bytes of the artifact.")
    fits: Literal[True] = True
    basis: EstimateBasis
