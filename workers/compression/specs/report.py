"""The report: what was asked, what was done, what was measured, on what."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.messages import Text
from workers.compression.specs.metrics import Count, EvaluationSummary, JobMetrics, Layer, Positive, StepOutcome
from workers.compression.specs.sensitivity import SensitivityMap, SensitivityOptions
from workers.compression.specs.step import Contract

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class StoredModel(Contract):
    """A model file named by its content."""

    name: Text
    format: ModelFormat
    sha256: Sha256
    size_bytes: Count


class Report(Contract):
    """Everything a reader needs to believe or to repeat a result."""

    object: Literal["report"] = "report"
    version: Literal[1] = 1
    job: Text | None = Field(None, description="Job id; none when the engine ran alone.")
    created_at: Text
    original: StoredModel
    artifact: StoredModel
    load: Text = Field(description="Paste-ready snippet that opens the artifact.")
    recipe: tuple[dict[str, JsonValue], ...]
    seed: int
    steps: tuple[StepOutcome, ...]
    metrics: JobMetrics
    evaluation: EvaluationSummary
    findings: tuple[Text, ...]
    warnings: tuple[Text, ...]
    layers: tuple[Layer, ...]
    harness: dict[str, JsonValue]
    environment: dict[str, JsonValue]


class AnalysisReport(Contract):
    """What an analysis measured, on what."""

    object: Literal["analysis_report"] = "analysis_report"
    version: Literal[1] = 1
    job: Text | None = None
    created_at: Text
    model: StoredModel
    options: SensitivityOptions
    sensitivity: SensitivityMap
    reused: bool = Field(description="Whether all of it had been measured by earlier jobs.")
    rows: Text = Field(description="Which rows it was measured on, in words.")
    seconds: Positive
    layers: tuple[Layer, ...]
    warnings: tuple[Text, ...]
    seed: int
    environment: dict[str, JsonValue]
