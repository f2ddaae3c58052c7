"""Measured figures: what a report may contain, and the only shapes in which a child may hand figures over."""

from typing import Annotated

from pydantic import Field

from workers.compression.specs.formats import Task
from workers.compression.specs.step import Contract

Count = Annotated[int, Field(ge=0, le=1 << 62)]
Positive = Annotated[float, Field(ge=0.0, le=1e18)]
Finite = Annotated[float, Field(ge=-1e30, le=1e30)]
Name = Annotated[str, Field(max_length=512)]

HIGHER_IS_BETTER = frozenset({"accuracy", "f1", "auc", "r2", "spearman", "pearson"})
LOWER_IS_BETTER = frozenset({"rmse", "mae", "perplexity"})


class Percentiles(Contract):
    """Wall time of one call in milliseconds."""

    p50: Positive
    p95: Positive


class Interval(Contract):
    """95 % interval of a metric over ``n`` rows."""

    n: Count
    low: Finite
    high: Finite


class Fidelity(Contract):
    """How close the outputs are to the original's on the same rows."""

    cosine: Finite
    sqnr_db: Finite
    top1_agreement: Positive | None = None
    max_abs_error: Positive


class Metrics(Contract):
    """One side of the before/after table; fields that do not apply are left out."""

    size_bytes: Count
    archive_bytes: Count | None = Field(None, description="Of the archive, where one was asked for.")
    parameters: Count
    nonzero_parameters: Count
    bits_per_parameter: Positive
    macs: Count | None = None
    latency_ms: dict[str, Percentiles] | None = Field(None, description="Keys are batch sizes.")
    throughput_per_s: Positive | None = None
    load_ms: Positive | None = None
    peak_memory_bytes: Count | None = None
    accuracy: Finite | None = None
    f1: Finite | None = None
    auc: Finite | None = None
    rmse: Finite | None = None
    mae: Finite | None = None
    r2: Finite | None = None
    spearman: Finite | None = None
    pearson: Finite | None = None
    perplexity: Finite | None = None
    fidelity: Fidelity | None = None
    intervals: dict[str, Interval] = Field(default_factory=dict)


class Ratios(Contract):
    """original / compressed, so greater is better."""

    size: Positive
    archive: Positive | None = Field(None, description="Original's bytes over the archive's.")
    bits_per_parameter: Positive | None = None
    macs: Positive | None = None
    load: Positive | None = None
    peak_memory: Positive | None = None
    latency: Positive | None = Field(None, description="At the smallest measured batch size.")
    latency_by_batch_size: dict[str, Positive] | None = None
    latency_intervals: dict[str, Interval] | None = Field(
        None, description="95 % bootstrap interval of each latency ratio; one that holds 1.0 means no difference."
    )


class JobMetrics(Contract):
    """Both sides and their ratios."""

    original: Metrics
    compressed: Metrics
    ratios: Ratios


class Layer(Contract):
    """One layer (or tensor, for models without a graph) before and after."""

    name: Name
    op: Name
    parameters: Count
    bytes_before: Count
    bytes_after: Count
    bits: Positive
    sparsity: Annotated[float, Field(ge=0.0, le=1.0)]
    sqnr_db: Finite | None = None
    sensitivity: Finite | None = Field(
        None,
        description="Relative squared error of the outputs when this layer alone is quantized, at 4 bits if measured, "
        "else at the fewest; known once an analysis or a mixed quantization of the model has measured it.",
    )


class TensorStatistics(Contract):
    """One stored tensor; the histogram has equal-width bins from ``min`` to ``max``."""

    name: Name
    shape: tuple[Count, ...]
    dtype: Annotated[str, Field(max_length=32)]
    bytes: Count
    sparsity: Annotated[float, Field(ge=0.0, le=1.0)]
    min: Finite | None = None
    max: Finite | None = None
    mean: Finite | None = None
    std: Finite | None = None
    histogram: tuple[Count, ...] = ()


class Curve(Contract):
    """A figure over the course of a training: pairs of update and value."""

    name: Name
    points: Annotated[tuple[tuple[Count, Finite], ...], Field(max_length=2000)]


class JudgedDrop(Contract):
    """How much worse a pruned model is than the unpruned one on the same rows."""

    rows: Count
    original: Finite = Field(description="The metric's figure of the model before the step; 1 for fidelity.")
    compressed: Finite
    drop: Finite = Field(
        description="In absolute points for accuracy, f1, auc and fidelity (1 - mean cosine of the outputs), relative "
        "to the original's figure for other metrics; negative where the pruned model is better."
    )
    interval: Interval | None = Field(None, description="95 % of the drop, by a paired bootstrap over the rows.")


class FoundSparsity(Contract):
    """A sparsity that was found for a tolerated drop: by selection rows, confirmed on others.

    Neither rows are used for anything else, so the job's own metrics are independent of both.
    """

    max_drop: Annotated[float, Field(ge=0.0, le=1.0)]
    metric: Name
    sparsity: Annotated[float, Field(ge=0.0, le=1.0, description="Of all weights that the step may prune.")]
    selection: JudgedDrop = Field(description="On the rows that the sparsity was chosen by, hence optimistic.")
    confirmation: JudgedDrop = Field(description="On rows that no sparsity was chosen by.")
    confirmations: Count = Field(
        description="How often confirmation rows were looked at: once, and again each time that the search had to "
        "back off because they showed more than max_drop."
    )
    evaluations: Count = Field(description="How many jointly pruned models were judged on the selection rows.")
    capped: bool = Field(description="Whether even the largest sparsity that is tried keeps within max_drop.")
    confirmed: bool = Field(description="Whether the confirmed drop is at most max_drop.")


class StepOutcome(Contract):
    """What one recipe step did, as far as a quick look in memory can tell; the proof is in the metrics."""

    step: Name
    technique: Name
    method: Name
    seconds: Positive
    changed: Annotated[str, Field(max_length=2000)]
    fidelity: Fidelity | None = None
    found: FoundSparsity | None = Field(None, description="Of a pruning step with max_drop.")
    curves: Annotated[tuple[Curve, ...], Field(max_length=20)] = ()
    warnings: tuple[Annotated[str, Field(max_length=2000)], ...] = ()


class EvaluationSummary(Contract):
    """Which rows were used for what, and where they came from."""

    task: Task
    metric: Name
    rows: Count
    synthetic: bool
    split: Annotated[str, Field(max_length=2000)]
