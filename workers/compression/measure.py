"""The tasks that measure: one model alone in a fresh process, and both side by side."""

import resource
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from workers.compression import timing
from workers.compression.context import Context
from workers.compression.data import Dataset, first_feeds, synthetic
from workers.compression.environment import describe
from workers.compression.evaluation import BATCH_ROWS, Judgement, judge
from workers.compression.families.model import Feeds, Model
from workers.compression.layers import count_weights, tensor_fidelity
from workers.compression.pairing import Pair
from workers.compression.registry import family
from workers.compression.specs.errors import DatasetMismatch, EngineError, UnsupportedOperator
from workers.compression.specs.formats import RUNNABLE_FORMATS, Task
from workers.compression.specs.messages import Compare, Comparison, ModelFile, Probe, ProbeResult
from workers.compression.specs.metrics import (
    EvaluationSummary,
    Interval,
    JobMetrics,
    Metrics,
    Percentiles,
    Ratios,
)
from workers.compression.specs.recipe import Recipe
from workers.compression.task_scores import DEFAULT_METRICS, Scored

SYNTHETIC_ROWS = 64
SYNTHETIC_STRETCHES = (1, 2, 4, 16, 32, 64)
TOKENIZER = "tokenizer.json"
MAY_CHANGE_OUTPUTS = frozenset({"finetune", "distill"})


def probe(request: Probe, context: Context) -> ProbeResult:
    """Opens and runs one stored model in this process: nothing else has been loaded before it.

    ``load_ms`` runs from the file to the first output. ``peak_memory_bytes`` is how far the process's peak rose above
    what it held with the runtime imported but no model.
    """
    family(request.model.format)
    held = _resident_bytes()
    started = time.perf_counter()
    model = open_file(request.model, context)
    if request.model.format in RUNNABLE_FORMATS:
        tokenizer = model.tokenizer_file() or _tokenizer_beside(request.original, context)
        model.run(first_feeds(evaluation_data(model, context), model.inputs, tokenizer, _fixed_batch(model) or 1))
    load_ms = (time.perf_counter() - started) * 1000.0
    return ProbeResult(load_ms=load_ms, peak_memory_bytes=max(0, _peak_bytes() - held))


def compare(request: Compare, context: Context) -> Comparison:
    """Measures original and stored artifact with one harness in one process."""
    pair = Pair(open_file(request.original, context), open_file(request.compressed, context))
    dataset = evaluation_data(pair.original, context) if request.original.format in RUNNABLE_FORMATS else None
    context.progress(0.1, "comparing outputs")
    judgement = _judge(pair, dataset, request, context)
    context.progress(0.6, "timing")
    times = _time_batch_sizes(pair, dataset, context) if dataset is not None else {}
    few_rows = pair.feeds(dataset, pair.fixed_rows(dataset) or 1) if dataset is not None else ([], [])
    before = _metrics(pair.original, judgement.original, few_rows[0], {size: t.original for size, t in times.items()})
    after = _metrics(
        pair.compressed, judgement.compressed, few_rows[1], {size: t.compressed for size, t in times.items()}
    )
    sides = (before, after.model_copy(update={"fidelity": judgement.fidelity}))
    if request.probes is not None:
        sides = _with_probes(sides, request.probes)
    ratios = _ratios(sides, times, context.random())
    task = dataset.task if dataset is not None else Task.FIDELITY
    return Comparison(
        metrics=JobMetrics(original=sides[0], compressed=sides[1], ratios=ratios),
        evaluation=EvaluationSummary(
            task=task,
            metric=request.evaluation.metric or DEFAULT_METRICS[task],
            rows=judgement.rows,
            synthetic=dataset is not None and dataset.synthetic,
            split=_split_sentence(request, dataset),
        ),
        harness=_harness(request, times),
        environment=describe(request.target.threads),
        findings=(*judgement.findings, *_findings(ratios)),
        warnings=tuple(context.warnings),
    )


def open_file(file: ModelFile, context: Context) -> Model:
    """Opens a clean form and sets the target's thread count."""
    model = family(file.format).open_model(Path(file.path), context)
    model.threads(context.target.threads)
    return model


def evaluation_data(model: Model, context: Context) -> Dataset:
    """The user's evaluation rows, else any rows of the user's, else seeded synthetic ones."""
    given = context.evaluation_data or context.calibration or context.train
    return given if given is not None else _synthetic_that_runs(model, context)


def _synthetic_that_runs(model: Model, context: Context) -> Dataset:
    """Made-up rows with the shortest customary lengths of the dynamic axes that the model accepts.

    Raises:
        DatasetMismatch: Of the first try, if the model accepts none.
    """
    refusal: EngineError | None = None
    for stretch in SYNTHETIC_STRETCHES:
        rows = synthetic(model.inputs, SYNTHETIC_ROWS, context.seed, context.evaluation.input_shapes, stretch)
        try:
            model.run(first_feeds(rows, model.inputs, model.tokenizer_file(), _fixed_batch(model) or 1))
        except (DatasetMismatch, UnsupportedOperator) as error:
            refusal = refusal or error
            continue
        return rows
    raise DatasetMismatch(
        f"No data was given, and the model does not run on made-up inputs: {refusal}",
        hint="Give evaluation data, or the lengths of the dynamic axes in evaluation.input_shapes.",
        pointer="/evaluation/input_shapes",
    )


def _judge(pair: Pair, dataset: Dataset | None, request: Compare, context: Context) -> Judgement:
    if dataset is None:
        return Judgement(0, tensor_fidelity(pair.original, pair.compressed), Scored(), Scored())
    rows = dataset.limited(request.evaluation.max_samples)
    may_change = outputs_may_change(request.recipe)
    return judge(pair.original, pair.compressed, rows, context.random(), outputs_may_change=may_change)


def outputs_may_change(recipe: Recipe) -> bool:
    """Whether a step may replace the last layer or the whole model, so that the artifact answers something else."""
    return any(step.technique in MAY_CHANGE_OUTPUTS for step in recipe)


def _time_batch_sizes(pair: Pair, dataset: Dataset, context: Context) -> dict[int, timing.PairedTimes]:
    times: dict[int, timing.PairedTimes] = {}
    fixed = pair.fixed_rows(dataset)
    sizes = sorted(set(context.evaluation.batch_sizes)) if fixed is None else [fixed]
    for index, size in enumerate(sizes):
        feeds = pair.feeds(dataset, size)
        times[size] = timing.time_side_by_side(pair.original, pair.compressed, feeds, context.evaluation.repeats)
        context.progress(0.6 + 0.4 * (index + 1) / len(sizes), f"timed batch size {size}")
    if fixed is not None and set(context.evaluation.batch_sizes) != {fixed}:
        context.warn(f"Batch sizes are fixed in the models; latency is measured for {fixed} rows only.")
    return times


def _fixed_batch(model: Model) -> int | None:
    """The batch size that the graph has baked in, if any."""
    axes = [port.shape[0] for port in model.inputs if port.shape]
    fixed = [axis for axis in axes if isinstance(axis, int) and axis > 0]
    return fixed[0] if fixed and len(fixed) == len(axes) else None


def _metrics(model: Model, scored: Scored, few_rows: list[Feeds], times: dict[int, timing.Times]) -> Metrics:
    weights = count_weights(model)
    size = model.size_bytes()
    latency: dict[str, Percentiles] | None = None
    throughput = macs = None
    if few_rows:
        latency = {str(batch): timing.percentiles(taken) for batch, taken in times.items()}
        throughput = max(batch * 1000.0 / float(np.median(taken)) for batch, taken in times.items())
        macs_of_one = model.macs(few_rows[0])
        macs = None if macs_of_one is None else macs_of_one * len(few_rows)
    return Metrics.model_validate(
        {
            "size_bytes": size,
            "parameters": weights.total,
            "nonzero_parameters": weights.nonzero,
            "bits_per_parameter": 8.0 * size / max(weights.total, 1),
            "macs": macs,
            "latency_ms": latency,
            "throughput_per_s": throughput,
            "intervals": scored.intervals,
            **scored.values,
        }
    )


def _tokenizer_beside(original: ModelFile | None, context: Context) -> Path | None:
    """An artifact is a bare model file; the tokenizer that its data needs stayed in the original's archive."""
    if original is None or not zipfile.is_zipfile(original.path):
        return None
    with zipfile.ZipFile(original.path) as archive:
        if TOKENIZER not in archive.namelist():
            return None
        target = context.scratch / TOKENIZER
        with archive.open(TOKENIZER) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out)
    return target


def _with_probes(sides: tuple[Metrics, Metrics], probes: tuple[ProbeResult, ProbeResult]) -> tuple[Metrics, Metrics]:
    first, second = (
        side.model_copy(update={"load_ms": probed.load_ms, "peak_memory_bytes": probed.peak_memory_bytes})
        for side, probed in zip(sides, probes, strict=True)
    )
    return first, second


def _ratios(
    sides: tuple[Metrics, Metrics], times: dict[int, timing.PairedTimes], random: np.random.Generator
) -> Ratios:
    by_size = {str(size): pair.ratio() for size, pair in times.items()}
    intervals: dict[str, Interval] = {str(size): pair.ratio_interval(random) for size, pair in times.items()}
    return Ratios(
        size=_ratio(sides, "size_bytes") or 0.0,
        bits_per_parameter=_ratio(sides, "bits_per_parameter"),
        macs=_ratio(sides, "macs"),
        load=_ratio(sides, "load_ms"),
        peak_memory=_ratio(sides, "peak_memory_bytes"),
        latency=next(iter(by_size.values()), None),
        latency_by_batch_size=by_size or None,
        latency_intervals=intervals or None,
    )


def _ratio(sides: tuple[Metrics, Metrics], name: str) -> float | None:
    before, after = (getattr(side, name) for side in sides)
    if before is None or not after:
        return None
    return float(before) / float(after)


def _split_sentence(request: Compare, dataset: Dataset | None) -> str:
    if dataset is None:
        return "The file holds bare tensors: fidelity is that of the weights."
    if dataset.synthetic:
        return f"No data was given: {SYNTHETIC_ROWS} synthetic rows from the input shapes, seed {request.seed}."
    given = request.data.evaluation or request.data.calibration or request.data.train
    if given is None or given.part == (0.0, 1.0):
        return "The evaluation data was used for nothing else." if request.data.evaluation else "No evaluation data."
    low, high = given.part
    return (
        f"Rows {low:.0%} to {high:.0%} of a stratified permutation with seed {given.split_seed}; "
        "the rest of that dataset served other roles, such as calibration or training."
    )


def _harness(request: Compare, times: dict[int, timing.PairedTimes]) -> dict[str, JsonValue]:
    return {
        "order": "original and compressed interleaved, swapping who goes first",
        "warm_up_calls": timing.WARM_UP_CALLS,
        "timed_calls": {str(size): len(pair.original) for size, pair in times.items()},
        "threads": request.target.threads,
        "rows_per_batch_when_judging": BATCH_ROWS,
        "load": "file to first output, in a fresh process, checks of the file included on both sides",
        "peak_memory": "rise of the process's peak above the imported runtime, in a fresh process",
        "interval": "95 %; Wilson for accuracy, bootstrap over rows or paired calls otherwise",
    }


def _findings(ratios: Ratios) -> list[str]:
    found = []
    for size, interval in (ratios.latency_intervals or {}).items():
        if interval.low <= 1.0 <= interval.high:
            found.append(f"No latency difference at batch size {size} on this machine.")
        elif interval.high < 1.0:
            found.append(f"Slower than the original at batch size {size} on this machine.")
    return found


def _resident_bytes() -> int:
    with Path("/proc/self/statm").open() as statistics:
        return int(statistics.read().split()[1]) * resource.getpagesize()


def _peak_bytes() -> int:
    # Not getrusage: its ru_maxrss survives exec and so would show the parent's memory.
    with Path("/proc/self/status").open() as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
