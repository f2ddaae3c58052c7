"""Dynamic 8-bit quantization of ONNX models with standard operators.

Matrix products with a stored right side become ``MatMulInteger`` on activations that ``DynamicQuantizeLinear``
quantizes on the fly, embedding tables become integer rows with a scale each. Convolutions keep computing in float:
onnxruntime's ``ConvInteger`` is several times slower than its float kernel, so only their storage shrinks.
"""

from collections import Counter

import numpy as np

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.onnx.editing import Editor, opset_of, raise_opset
from workers.compression.families.onnx.float_weights import FloatWeight, float_weights
from workers.compression.families.onnx.matrices import weights_in
from workers.compression.families.onnx.model import OnnxModel, as_onnx
from workers.compression.families.onnx.walking import Index, array
from workers.compression.families.weights import Weight
from workers.compression.registry import implements
from workers.compression.specs.errors import EngineError, UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.quantize import DynamicQuantize
from workers.compression.techniques.quantize.dynamic.integer_products import ProductWriter, is_matrix_product
from workers.compression.techniques.quantize.dynamic.made_up_text import made_up_texts
from workers.compression.techniques.quantize.integer_layers.calibration import calibrate
from workers.compression.techniques.quantize.integer_layers.judging import Judge, Judged
from workers.compression.techniques.quantize.integer_layers.plan import Candidate, Choice, candidates, observed
from workers.compression.techniques.quantize.onnx_storage import STORED, drop_notes, store_as_integers
from workers.compression.techniques.quantize.targets import weights_for

OPSET = 11
SMALLEST_WEIGHT = 1024
"""Scales and zero points would eat what quantizing fewer elements saves."""

OBSERVED_ROWS = 128
HARMLESS_DB = 2.0

_PRODUCT = "matrix products of integers"


@implements(DynamicQuantize, formats=(ModelFormat.ONNX,))
def quantize_dynamically(model: Model, spec: DynamicQuantize, context: Context) -> Model:
    """Replaces every selected weight of ``model`` in place."""
    model = as_onnx(model)
    raise_opset(model.proto, OPSET)
    kind = weights_for(context.target, spec.scheme)
    editor = Editor(model.proto)
    found = list(weights_in(editor.index, SMALLEST_WEIGHT))
    weights = [(weight, place) for weight, place in found if weight.is_selected(spec.include, spec.exclude)]
    chosen = _by_rows(model, _products(editor.index, [place for _, place in weights]), spec, context)
    writer = ProductWriter(editor, kind, spec.granularity, chosen)
    done: Counter[str] = Counter()
    for count, (weight, place) in enumerate(weights):
        done.update(_quantize_weight(writer, weight, place, context))
        context.progress(0.8 + 0.2 * (count + 1) / len(weights), weight.layer)
    if not done:
        raise UnsupportedTechnique(_why_nothing(len(found)), hint="Look at the model's layers for their names.")
    editor.apply()
    drop_notes(model.proto)
    model.changed()
    _report(done, writer, context)
    return model


def _quantize_weight(writer: ProductWriter, weight: Weight, place: FloatWeight, context: Context) -> list[str]:
    """Quantizes one weight; returns what was done with it, if anything."""
    values = array(place.tensor).astype(np.float32)
    if not np.isfinite(values).all():
        context.warn(f"{weight.layer} stays float: its weight {weight.name} holds NaN or infinity.")
        return []
    if values.ndim == 2 and all(is_matrix_product(reader.place, reader.slot) for reader in place.readers):
        writer.write(place, values)
        return [_PRODUCT]
    stored = store_as_integers(writer.editor, weight, place, writer.granularity)
    if stored is None:
        context.warn(f"{weight.layer} stays float: it is too large for onnxruntime to restore it at load.")
        return []
    return [stored]


def _by_rows(model: OnnxModel, products: list[Candidate], spec: DynamicQuantize, context: Context) -> dict[str, Choice]:
    """What the user's rows speak for, or made-up texts where there are none; other made-up rows mislead."""
    if not products:
        return {}
    try:
        data = context.any_data() or made_up_texts(model, context)
        if data is None:
            return {}
        activations = calibrate(model, observed(products), data.limited(OBSERVED_ROWS), "minmax", context)
    except EngineError as error:
        context.log(f"the rows are not used: {error.detail}")
        return {}
    opset = opset_of(model.proto)
    precise, fast = (
        Judge(activations, weights_for(context.target, scheme), spec.granularity, opset)
        for scheme in (spec.scheme, "symmetric")
    )
    plain = precise.judge(products)
    quick = fast.judge(products) if spec.scheme == "auto" else plain
    chosen: dict[str, Choice] = {}
    for number, (found, is_fast) in enumerate(zip(plain, _fast_where_harmless(plain, quick), strict=True)):
        best = fast.refine(quick[number]) if is_fast else precise.refine(found)
        chosen[best.weight] = best.choice
        context.progress(0.5 + 0.3 * number / len(plain), best.weight)
    return chosen


def _products(index: Index, weights: list[FloatWeight]) -> list[Candidate]:
    names = {weight.value.name for weight in weights}
    found = candidates(index, list(float_weights(index, SMALLEST_WEIGHT)))
    return [candidate for candidate in found if candidate.weight.value.name in names and not candidate.convolution]


def _fast_where_harmless(precise: list[Judged], fast: list[Judged]) -> list[bool]:
    """Whether the integers with the quicker products lose little, on the mean over an activation's readers."""
    losses: dict[str, list[float]] = {}
    for exact, quick in zip(precise, fast, strict=True):
        losses.setdefault(exact.choice.candidate.entering.name, []).append(exact.sqnr_db - quick.sqnr_db)
    return [float(np.mean(losses[exact.choice.candidate.entering.name])) <= HARMLESS_DB for exact in precise]


def _why_nothing(found: int) -> str:
    if found:
        return (
            f"Of the model's {found} float32 weights, the include and exclude globs leave none that can be quantized."
        )
    return (
        f"The model has no float32 weight of at least {SMALLEST_WEIGHT} elements in a matrix product, convolution, "
        "recurrence or embedding: it is already quantized, or too small to gain from it."
    )


def _report(done: Counter[str], writer: ProductWriter, context: Context) -> None:
    for kind, count in sorted(done.items()):
        context.changed(f"{count} {kind}")
    smoothed = sum(choice.factors is not None for choice in writer.chosen.values())
    if smoothed:
        context.changed(f"outliers of {smoothed} products' activations moved into their weights")
    if done[STORED]:
        context.warn(
            f"{done[STORED]} weights shrink in the file only: convolutions and recurrences are restored to float when "
            "the model is loaded. onnxruntime's integer convolution with ranges found on the fly is slower than that; "
            "static quantization has faster ones."
        )
