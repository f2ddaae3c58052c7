"""Static 8-bit quantization of ONNX models: ranges from calibration rows, layers that would suffer left out."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from onnx import ModelProto

from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.model import Array, Model
from workers.compression.families.onnx.batch_norm import fold_batch_norms
from workers.compression.families.onnx.editing import Editor, opset_of, raise_opset
from workers.compression.families.onnx.float_weights import FloatWeight, float_weights, is_selected
from workers.compression.families.onnx.model import OnnxModel, as_onnx
from workers.compression.families.onnx.walking import Index, array
from workers.compression.registry import implements
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.quantize import StaticQuantize
from workers.compression.techniques.quantize.integer_layers.calibration import calibrate, feeds
from workers.compression.techniques.quantize.integer_layers.errors import sqnr_db
from workers.compression.techniques.quantize.integer_layers.judging import Judge, Judged
from workers.compression.techniques.quantize.integer_layers.plan import Candidate, candidates
from workers.compression.techniques.quantize.onnx_storage import store_as_integers
from workers.compression.techniques.quantize.static.quantizing import QdqWriter
from workers.compression.techniques.quantize.targets import weight_grid

OPSET = 13
SMALLEST_STORED = 1024
LAYER_BUDGET_DB = 10.0
OUTPUT_BUDGET_DB = 17.0
"""Of the whole model's outputs on calibration rows; 17 dB is a cosine of about 0.99."""

CHECKED_ROWS = 32
MAX_ROUNDS = 12
DROPPED_SHARE = 8
"""One in this many layers, the worst, is left out before the next try."""


@implements(StaticQuantize, formats=(ModelFormat.ONNX,))
def quantize_statically(model: Model, spec: StaticQuantize, context: Context) -> Model:
    """Quantizes layers of ``model`` in place as long as its outputs on calibration rows stay within the budget."""
    model = as_onnx(model)
    dataset = context.any_data()
    if dataset is None:
        raise UnsupportedTechnique("Static quantization needs calibration rows.")
    raise_opset(model.proto, OPSET)
    fold_batch_norms(model.proto)
    model.changed()
    dataset = dataset.limited(spec.samples)
    judged = _judge(model, spec, dataset, context)
    _quantize_within_budget(model, judged, spec, dataset.limited(CHECKED_ROWS), context)
    return model


def _judge(model: OnnxModel, spec: StaticQuantize, dataset: Dataset, context: Context) -> list[Judged]:
    index = Index.of(model.proto)
    found = list(candidates(index, _selected(index, spec)))
    if not found:
        raise UnsupportedTechnique(
            "No selected layer has an integer kernel; matrix products and convolutions with a float32 weight have.",
            hint="quantize.dynamic stores other weights as integers too.",
        )
    calibration = calibrate(model, _observed(found), dataset, spec.range, context)
    grid = weight_grid(context.target, "symmetric")
    return Judge(calibration, grid, spec.granularity, opset_of(model.proto)).judge(found)


def _selected(index: Index, spec: StaticQuantize, smallest: int = 1) -> list[FloatWeight]:
    return [weight for weight in float_weights(index, smallest) if is_selected(weight, spec.include, spec.exclude)]


def _observed(found: list[Candidate]) -> list[str]:
    values = (value for candidate in found for value in (candidate.entering, candidate.leaving))
    return list(dict.fromkeys(value.name for value in values if value is not None))


def _quantize_within_budget(
    model: OnnxModel, judged: list[Judged], spec: StaticQuantize, dataset: Dataset, context: Context
) -> None:
    """Leaves out the layers that lose most until the outputs are close enough; their weights are stored as integers."""
    exact = [model.run(batch) for batch in feeds(dataset, model)]
    original = ModelProto()
    original.CopyFrom(model.proto)
    kept = [found for found in judged if found.sqnr_db >= LAYER_BUDGET_DB]
    for attempt in range(MAX_ROUNDS):
        if not kept:
            break
        model.proto.CopyFrom(original)
        stored = _rewrite(model, kept, spec, context)
        closeness = _closeness(exact, [model.run(batch) for batch in feeds(dataset, model)])
        context.progress(0.7 + 0.3 * (attempt + 1) / MAX_ROUNDS, f"{len(kept)} layers, {closeness:.1f} dB")
        if closeness >= OUTPUT_BUDGET_DB:
            _report(kept, judged, stored, closeness, context)
            return
        worst_first = sorted(kept, key=lambda found: found.sqnr_db)
        dropped = worst_first[: max(1, len(kept) // DROPPED_SHARE)]
        kept = [found for found in kept if found not in dropped]
    raise UnsupportedTechnique(
        f"No set of layers keeps the model's outputs within {OUTPUT_BUDGET_DB:g} dB of the original on the "
        "calibration rows.",
        hint="Try range 'percentile', more samples, or quantize.dynamic.",
    )


def _rewrite(model: OnnxModel, kept: list[Judged], spec: StaticQuantize, context: Context) -> int:
    """Writes the layers in ``kept`` as integers and stores other large weights in 8 bits; returns how many others."""
    editor = Editor(model.proto)
    wanted = {found.weight: found.choice for found in kept}
    fresh = list(candidates(editor.index, _selected(editor.index, spec)))
    choices = [
        replace(wanted[candidate.weight.value.name], candidate=candidate)
        for candidate in fresh
        if candidate.weight.value.name in wanted
    ]
    QdqWriter(editor, weight_grid(context.target, "symmetric"), spec.granularity).write(choices)
    others = [w for w in _selected(editor.index, spec, SMALLEST_STORED) if w.value.name not in wanted]
    for weight in others:
        store_as_integers(editor, weight, array(weight.tensor).astype(np.float32), spec.granularity)
    editor.apply()
    model.changed()
    return len(others)


def _closeness(exact: list[list[Array]], rounded: list[list[Array]]) -> float:
    """The worst SQNR among the model's float outputs; -inf where one is no longer finite."""
    worst = float("inf")
    for output in range(len(exact[0])):
        if exact[0][output].dtype.kind == "f":
            before, after = (_joined(outputs, output) for outputs in (exact, rounded))
            worst = min(worst, sqnr_db(before, after) if np.isfinite(after).all() else -np.inf)
    return worst


def _joined(outputs: Sequence[list[Array]], output: int) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    return np.concatenate([np.asarray(batch[output], np.float32).reshape(-1) for batch in outputs])


def _report(kept: list[Judged], judged: list[Judged], stored: int, closeness: float, context: Context) -> None:
    smoothed = sum(found.choice.factors is not None for found in kept)
    context.changed(f"{len(kept)} layers compute on integers, {smoothed} of them on smoothed inputs")
    if stored:
        context.changed(f"{stored} weights stored as integers and computed in float")
    context.log(f"outputs on calibration rows are within {closeness:.1f} dB of the original")
    if len(kept) < len(judged):
        context.warn(
            f"{len(judged) - len(kept)} of {len(judged)} layers keep computing in float: on the calibration rows, "
            "rounding them moved the outputs too far."
        )
