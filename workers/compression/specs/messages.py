"""The protocol between the supervisor and its sandboxed child.

The supervisor writes one *request* as ``request.json`` into the child's working directory and starts it there. The
child writes *events* as JSON lines to its standard output and, at the end, one ``result.json`` holding an *outcome*.
Files the child makes lie below ``out/`` in the same directory and are named in the result. The parent believes
nothing: it parses all of this with these classes, sizes capped, and re-checks the files.
"""

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from workers.compression.specs.errors import Code
from workers.compression.specs.formats import DatasetFormat, Family, ModelFormat, Task
from workers.compression.specs.job import DatasetFields, Evaluation, Target
from workers.compression.specs.metrics import (
    EvaluationSummary,
    JobMetrics,
    Layer,
    StepOutcome,
    TensorStatistics,
)
from workers.compression.specs.recipe import Recipe
from workers.compression.specs.sensitivity import SensitivityMap, SensitivityOptions, Sha256
from workers.compression.specs.step import Contract

REQUEST_FILE = "request.json"
RESULT_FILE = "result.json"
OUTPUT_FOLDER = "out"
MAX_EVENT_BYTES = 4096
MAX_RESULT_BYTES = 32 << 20

Text = Annotated[str, Field(max_length=4000)]
Path = Annotated[str, Field(min_length=1, max_length=4096)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class ModelFile(Contract):
    """A model in its clean form: a single file, or a zip of stored (uncompressed) members for directories."""

    path: Path
    format: ModelFormat
    sha256: Sha256 | None = None


class DatasetFile(Contract):
    """A dataset file and the rows of it that this role may see.

    ``part`` is a half-open interval of a seeded (``split_seed``), stratified permutation of the rows: roles that share
    one dataset get disjoint parts.
    """

    path: Path
    format: DatasetFormat
    fields: DatasetFields = DatasetFields()
    part: tuple[Share, Share] = (0.0, 1.0)
    split_seed: int = 0
    sha256: Sha256 | None = None


class Data(Contract):
    """The data of a job by role."""

    train: DatasetFile | None = None
    calibration: DatasetFile | None = None
    selection: DatasetFile | None = None
    confirmation: DatasetFile | None = None
    evaluation: DatasetFile | None = None


class InspectModel(Contract):
    """Check an upload by its content, derive the clean form into ``out/clean`` and describe it."""

    task: Literal["inspect_model"] = "inspect_model"
    path: Path
    filename: Text = ""


class InspectDataset(Contract):
    """Check a dataset by its content and describe it."""

    task: Literal["inspect_dataset"] = "inspect_dataset"
    path: Path
    filename: Text = ""
    fields: DatasetFields = DatasetFields()


class JobPart(Contract):
    """What every child of a compression is told."""

    data: Data = Data()
    target: Target = Target()
    evaluation: Evaluation = Evaluation()
    seed: int = 0


class Checkpoint(Contract):
    """Where a step of the recipe stood; ``update`` grows until the step is ``finished``."""

    step: Text
    path: Path
    update: Annotated[int, Field(ge=0, le=1 << 40)]
    finished: bool = False


class Compress(JobPart):
    """Open the model, apply the recipe, write the artifact to ``out/<artifact.name>``."""

    task: Literal["compress"] = "compress"
    model: ModelFile
    recipe: Recipe
    students: dict[Text, ModelFile] = Field(default_factory=dict, description="Models that steps name, by their id.")
    checkpoints: tuple[Checkpoint, ...] = Field((), description="The latest per step, of an attempt that was cut off.")
    checkpoint_seconds: Annotated[float, Field(gt=0.0, le=1e9)] = 30.0
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    archive: bool = Field(False, description="Whether to archive the artifact too.")
    sensitivities: tuple[SensitivityMap, ...] = Field((), description="What earlier jobs measured of this model.")


class Analyze(JobPart):
    """Open the model and measure how sensitive its outputs are to each weight's quantization."""

    task: Literal["analyze"] = "analyze"
    model: ModelFile
    options: SensitivityOptions
    checkpoints: tuple[Checkpoint, ...] = ()
    checkpoint_seconds: Annotated[float, Field(gt=0.0, le=1e9)] = 30.0
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    sensitivities: tuple[SensitivityMap, ...] = ()


class Probe(JobPart):
    """Load one stored model in this fresh process, run it once: load time and peak memory of it alone."""

    task: Literal["probe"] = "probe"
    model: ModelFile
    original: ModelFile | None = Field(None, description="Where the tokenizer is if the model brings none.")


class Compare(JobPart):
    """Re-open original and stored artifact in this fresh process and measure both with one harness, interleaved."""

    task: Literal["compare"] = "compare"
    original: ModelFile
    compressed: ModelFile
    probes: tuple["ProbeResult", "ProbeResult"] | None = None
    recipe: Recipe


Request = Annotated[
    InspectModel | InspectDataset | Compress | Analyze | Probe | Compare,
    Field(discriminator="task"),
]


class Progress(Contract):
    """Where the work stands; ``fraction`` is of this child's whole task."""

    type: Literal["progress"] = "progress"
    fraction: Share
    step: Text
    message: Text = ""
    eta_seconds: Annotated[float, Field(ge=0.0, le=1e9)] | None = None


class Log(Contract):
    """A line for ``GET /v1/jobs/{id}/logs``."""

    type: Literal["log"] = "log"
    level: Literal["debug", "info", "warning", "error"] = "info"
    message: Text


class StepCompleted(Contract):
    """A recipe step has been applied in memory."""

    type: Literal["step_completed"] = "step_completed"
    outcome: StepOutcome


class MetricReported(Contract):
    """A figure on the way, such as a loss at a training step."""

    type: Literal["metric"] = "metric"
    name: Text
    value: Annotated[float, Field(ge=-1e30, le=1e30)]
    step: int = 0


class CheckpointWritten(Contract):
    """A file below ``out/`` from which another worker can go on; complete when this is said, never changed after."""

    type: Literal["checkpoint"] = "checkpoint"
    checkpoint: Checkpoint


Event = Annotated[Progress | Log | StepCompleted | MetricReported | CheckpointWritten, Field(discriminator="type")]


class Port(Contract):
    """A model's input or output; an unknown axis is its symbol, or -1 where it has none."""

    name: Text
    shape: tuple[int | str, ...]
    dtype: Annotated[str, Field(max_length=32)]


class ModelInspection(Contract):
    """What an upload turned out to be."""

    kind: Literal["model_inspection"] = "model_inspection"
    format: ModelFormat
    family: Family
    clean: Path | None = Field(None, description="File below out/ with the clean form; None if the upload is clean.")
    parameters: Annotated[int, Field(ge=0, le=1 << 50)]
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    tensors: tuple[TensorStatistics, ...] = ()
    details: dict[str, JsonValue] = Field(default_factory=dict, description="Family-specific facts, such as opset.")
    warnings: tuple[Text, ...] = ()


class DatasetInspection(Contract):
    """What a dataset turned out to be."""

    kind: Literal["dataset_inspection"] = "dataset_inspection"
    format: DatasetFormat
    rows: Annotated[int, Field(ge=0, le=1 << 40)]
    task: Task
    features: tuple[Port, ...] = Field((), description="Feature arrays, columns or text fields; first axis is rows.")
    target: Port | None = None
    classes: tuple[Text, ...] = Field((), max_length=10_000)
    warnings: tuple[Text, ...] = ()


class ExtraFile(Contract):
    """A file besides the model itself, such as the adapter of a fine-tuning."""

    path: Path = Field(description="File below out/.")
    name: Text
    kind: Literal["adapter", "archive"] = "adapter"
    format: Annotated[str, Field(max_length=32)]
    load: Text = Field(description="Paste-ready snippet that opens it.")


class Compressed(Contract):
    """The artifact that a recipe made."""

    kind: Literal["compressed"] = "compressed"
    path: Path = Field(description="File below out/.")
    name: Text
    format: ModelFormat
    steps: tuple[StepOutcome, ...]
    layers: tuple[Layer, ...] = ()
    load: Text = Field(description="Paste-ready snippet that opens the artifact.")
    extras: Annotated[tuple[ExtraFile, ...], Field(max_length=8)] = ()
    sensitivities: Annotated[tuple[SensitivityMap, ...], Field(max_length=1)] = ()
    warnings: tuple[Text, ...] = ()


class Analyzed(Contract):
    """How sensitive a model is to the quantization of its weights."""

    kind: Literal["analyzed"] = "analyzed"
    sensitivity: SensitivityMap
    reused: bool = Field(False, description="Whether all of it had been measured before.")
    layers: tuple[Layer, ...] = ()
    seconds: Annotated[float, Field(ge=0.0, le=1e9)]
    environment: dict[str, JsonValue] = Field(default_factory=dict)
    warnings: tuple[Text, ...] = ()


class ProbeResult(Contract):
    """Load time and memory of one model alone in a process."""

    kind: Literal["probe_result"] = "probe_result"
    load_ms: Annotated[float, Field(ge=0.0, le=1e9)]
    peak_memory_bytes: Annotated[int, Field(ge=0, le=1 << 50)]


class Comparison(Contract):
    """The measured before and after."""

    kind: Literal["comparison"] = "comparison"
    metrics: JobMetrics
    evaluation: EvaluationSummary
    harness: dict[str, JsonValue] = Field(default_factory=dict, description="Warm-up, repeats, threads, order.")
    environment: dict[str, JsonValue] = Field(default_factory=dict, description="Versions, ISA, threads.")
    findings: tuple[Text, ...] = Field((), description="Verdicts in words, such as 'no latency difference'.")
    warnings: tuple[Text, ...] = ()


Result = Annotated[
    ModelInspection | DatasetInspection | Compressed | Analyzed | ProbeResult | Comparison,
    Field(discriminator="kind"),
]


class Failure(Contract):
    """An engine error on its way to the supervisor."""

    code: Code
    detail: Text
    reason: Text | None = None
    hint: Text | None = None
    step: Text | None = None
    retryable: bool = False


class Outcome(Contract):
    """Content of ``result.json``: exactly one of the two."""

    result: Result | None = None
    failure: Failure | None = None


Compare.model_rebuild()
