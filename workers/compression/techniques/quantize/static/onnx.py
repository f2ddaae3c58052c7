"""Static 8-bit quantization of ONNX models: ranges from calibration rows, layers that would suffer left out."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from onnx import ModelProto

from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.model import Model
from workers.compression.families.onnx.batch_norm import fold_batch_norms
from workers.compression.families.onnx.editing import Editor, opset_of, raise_opset
from workers.compression.families.onnx.float_weights import FloatWeight, float_weights, is_selected
from workers.compression.families.onnx.matrices import weights_in
from workers.compression.families.onnx.model import OnnxModel, as_onnx
from workers.compression.families.onnx.walking import Index
from workers.compression.registry import implements
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.quantize import StaticQuantize
from workers.compression.techniques.quantize.integer_layers.budget import (
    CHECKED_ROWS,
    MAX_ROUNDS,
    OUTPUT_BUDGET_DB,
    closeness_db,
    fewer_and_fewer,
)
from workers.compression.techniques.quantize.integer_layers.calibration import calibrate, feeds
from workers.compression.techniques.quantize.integer_layers.judging import Judge, Judged
from workers.compression.techniques.quantize.integer_layers.plan import Candidate, candidates, observed
from workers.compression.techniques.quantize.onnx_storage import drop_notes, store_as_integers
from workers.compression.techniques.quantize.static.choosing import with_best_range
from workers.compression.techniques.quantize.static.quantizing import QdqWriter
from workers.compression.techniques.quantize.targets import fast_weights, precise_weights

OPSET = 13
SMALLEST_STORED = 1024


@implements(StaticQuantize, formats=(ModelFormat.ONNX,))
def quantize_statically(model: Model, spec: StaticQuantize, context: Context) -> Model:
    """Quantizes layers of ``model`` as long as its outputs on calibration rows stay within the budget."""
    model = as_onnx(model)
    if spec.range != "auto":
        return _quantized(model, spec, context)
    original = model

    def anew(chosen: StaticQuantize, own: Context) -> OnnxModel:
        proto = ModelProto()
        proto.CopyFrom(original.proto)
        made = OnnxModel(proto, tokenizer=original.tokenizer_file())
        made.threads(context.threads)
        return _quantized(made, chosen, own)

    return with_best_range(original, spec, context, anew)


def _quantized(model: OnnxModel, spec: StaticQuantize, context: Context) -> OnnxModel:
    dataset = context.any_data()
    if dataset is None:
        raise UnsupportedTechnique("Static quantization needs calibration rows.")
    raise_opset(model.proto, OPSET)
    fold_batch_norms(model.proto)
    model.changed()
    dataset = dataset.limited(spec.samples)
    judges, found = _judges(model, spec, dataset, context)
    _quantize_within_budget(model, judges, found, spec, dataset.limited(CHECKED_ROWS), context)
    return model


def _judges(
    model: OnnxModel, spec: StaticQuantize, dataset: Dataset, context: Context
) -> tuple[list[Judge], list[Candidate]]:
    """Judges of fast and of precise integers for weights (one where they are the same), and the layers to judge."""
    index = Index.of(model.proto)
    found = list(candidates(index, _selected(index, spec)))
    if not found:
        raise UnsupportedTechnique(
            "No selected layer has an integer kernel; matrix products and convolutions with a float32 weight have.",
            hint="quantize.dynamic stores other weights as integers too.",
        )
    activations = calibrate(model, observed(found), dataset, spec.range, context)
    kinds = dict.fromkeys((fast_weights(context.target), precise_weights(context.target)))
    judges = [
        Judge(
            activations,
            kind,
            spec.granularity,
            opset_of(model.proto),
            is_adaptive=spec.rounding == "adaptive",
            corrects_bias=spec.bias_correction,
        )
        for kind in kinds
    ]
    return judges, found


def _selected(index: Index, spec: StaticQuantize) -> list[FloatWeight]:
    return [weight for weight in float_weights(index) if is_selected(weight, spec.include, spec.exclude)]


def _quantize_within_budget(
    model: OnnxModel,
    judges: list[Judge],
    found: list[Candidate],
    spec: StaticQuantize,
    dataset: Dataset,
    context: Context,
) -> None:
    """Tries fast integers, then precise ones, then leaves layers out, until the outputs are close enough."""
    exact = [model.run(batch) for batch in feeds(dataset, model)]
    original = ModelProto()
    original.CopyFrom(model.proto)

    def attempt(kept: list[Judged]) -> tuple[int, float]:
        model.proto.CopyFrom(original)
        stored = _rewrite(model, kept, spec)
        return stored, closeness_db(exact, [model.run(batch) for batch in feeds(dataset, model)])

    for number, (judged, kept) in enumerate(_attempts(judges, found, lambda layer: attempt([layer])[1])):
        stored, closeness = attempt(kept)
        context.progress(0.8 + 0.2 * number / MAX_ROUNDS, f"{len(kept)} layers, {closeness:.1f} dB")
        if closeness >= OUTPUT_BUDGET_DB:
            _report(kept, judged, stored, closeness, context)
            return
    raise UnsupportedTechnique(
        f"No set of layers keeps the model's outputs within {OUTPUT_BUDGET_DB:g} dB of the original on the "
        "calibration rows.",
        hint="Try range 'mse', more samples, or quantize.dynamic.",
    )


def _attempts(
    judges: list[Judge], found: list[Candidate], alone_db: Callable[[Judged], float]
) -> Iterator[tuple[list[Judged], list[Judged]]]:
    """All layers as judged, and those to quantize; from the last judge on, ever fewer of the worst.

    Which are the worst is told by the model's outputs with one layer rounded at a time: where a single channel holds
    nearly all of an activation's energy, a layer's own error says nothing.
    """
    judged: list[Judged] = []
    for judge in judges:
        judged = [judge.refine(layer) for layer in judge.judge(found)]
        for kept in fewer_and_fewer(judged, lambda layer: layer.sqnr_db, rounds=1):
            yield judged, kept
    effects = {layer.weight: alone_db(layer) for layer in judged}
    for kept in fewer_and_fewer(judged, lambda layer: effects[layer.weight], MAX_ROUNDS):
        if len(kept) < len(judged):
            yield judged, kept


def _rewrite(model: OnnxModel, kept: list[Judged], spec: StaticQuantize) -> int:
    """Writes the layers in ``kept`` as integers and stores other large weights in 8 bits; returns how many others."""
    editor = Editor(model.proto)
    wanted = {found.weight: found.choice for found in kept}
    fresh = list(candidates(editor.index, _selected(editor.index, spec)))
    choices = [
        replace(wanted[candidate.weight.value.name], candidate=candidate)
        for candidate in fresh
        if candidate.weight.value.name in wanted
    ]
    QdqWriter(editor).write(choices)
    stored = 0
    for weight, place in weights_in(editor.index, SMALLEST_STORED):
        if weight.is_selected(spec.include, spec.exclude) and place.value.name not in wanted:
            stored += store_as_integers(editor, weight, place, spec.granularity) is not None
    editor.apply()
    drop_notes(model.proto)
    model.changed()
    return stored


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
