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
from workers.compression.families.onnx.float_weights import FloatWeight, float_weights, is_selected
from workers.compression.families.onnx.model import OnnxModel, as_onnx
from workers.compression.families.onnx.walking import Index, array
from workers.compression.registry import implements
from workers.compression.specs.errors import EngineError, UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.quantize import DynamicQuantize
from workers.compression.techniques.quantize.dynamic.integer_products import ProductWriter, Rounding, is_matrix_product
from workers.compression.techniques.quantize.integer_layers.calibration import calibrate
from workers.compression.techniques.quantize.integer_layers.judging import Judge, Judged
from workers.compression.techniques.quantize.integer_layers.plan import Candidate, candidates
from workers.compression.techniques.quantize.onnx_storage import STORED, store_as_integers
from workers.compression.techniques.quantize.targets import weight_grid

OPSET = 11
SMALLEST_WEIGHT = 1024
"""Scales and zero points would eat what quantizing fewer elements saves."""

OBSERVED_ROWS = 32
HARMLESS_DB = 2.0

_PRODUCT = "matrix products of integers"


@implements(DynamicQuantize, formats=(ModelFormat.ONNX,))
def quantize_dynamically(model: Model, spec: DynamicQuantize, context: Context) -> Model:
    """Replaces every selected weight of ``model`` in place."""
    model = as_onnx(model)
    raise_opset(model.proto, OPSET)
    default = Rounding(weight_grid(context.target, spec.scheme))
    editor = Editor(model.proto)
    found = list(float_weights(editor.index, SMALLEST_WEIGHT))
    weights = [weight for weight in found if is_selected(weight, spec.include, spec.exclude)]
    writer = ProductWriter(editor, default, spec.granularity, _by_rows(model, weights, spec, context))
    done: Counter[str] = Counter()
    for count, weight in enumerate(weights):
        done.update(_quantize_weight(writer, weight, context))
        context.progress(0.5 + 0.5 * (count + 1) / len(weights), weight.layer)
    if not done:
        raise UnsupportedTechnique(_why_nothing(len(found)), hint="Look at the model's layers for their names.")
    editor.apply()
    model.changed()
    _report(done, writer, context)
    return model


def _quantize_weight(writer: ProductWriter, weight: FloatWeight, context: Context) -> list[str]:
    """Quantizes one weight; returns what was done with it, if anything."""
    values = array(weight.tensor).astype(np.float32)
    if not np.isfinite(values).all():
        context.warn(f"{weight.layer} stays float: its weight {weight.value.name} holds NaN or infinity.")
        return []
    if values.ndim == 2 and all(is_matrix_product(reader.place, reader.slot) for reader in weight.readers):
        writer.write(weight, values)
        return [_PRODUCT]
    return [store_as_integers(writer.editor, weight, values, writer.granularity)]


def _by_rows(
    model: OnnxModel, weights: list[FloatWeight], spec: DynamicQuantize, context: Context
) -> dict[str, Rounding]:
    """Roundings that the user's rows speak for; made-up rows mislead more than they help."""
    data = context.any_data()
    products = _products(Index.of(model.proto), weights)
    if data is None or not products:
        return {}
    entering = list(dict.fromkeys(candidate.entering.name for candidate in products))
    try:
        calibration = calibrate(model, entering, data.limited(OBSERVED_ROWS), "minmax", context)
    except EngineError as error:
        context.log(f"the rows are not used: {error.detail}")
        return {}
    opset = opset_of(model.proto)
    precise, fast = (
        Judge(calibration, weight_grid(context.target, scheme), spec.granularity, opset).judge(products)
        for scheme in (spec.scheme, "symmetric")
    )
    if spec.scheme != "auto":
        return {found.weight: Rounding(found.grid, found.choice.factors) for found in precise}
    return _fast_where_harmless(precise, fast)


def _products(index: Index, weights: list[FloatWeight]) -> list[Candidate]:
    names = {weight.value.name for weight in weights}
    found = candidates(index, list(float_weights(index, SMALLEST_WEIGHT)))
    return [candidate for candidate in found if candidate.weight.value.name in names and not candidate.convolution]


def _fast_where_harmless(precise: list[Judged], fast: list[Judged]) -> dict[str, Rounding]:
    """Symmetric weights, whose products are quicker on x86, unless an activation's readers lose too much by them."""
    losses: dict[str, list[float]] = {}
    for exact, quick in zip(precise, fast, strict=True):
        losses.setdefault(exact.choice.candidate.entering.name, []).append(exact.sqnr_db - quick.sqnr_db)
    chosen: dict[str, Rounding] = {}
    for exact, quick in zip(precise, fast, strict=True):
        loss = float(np.mean(losses[exact.choice.candidate.entering.name]))
        best = quick if loss <= HARMLESS_DB else exact
        chosen[best.weight] = Rounding(best.grid, best.choice.factors)
    return chosen


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
    smoothed = sum(rounding.factors is not None for rounding in writer.chosen.values())
    if smoothed:
        context.changed(f"outliers of {smoothed} products' activations moved into their weights")
    if done[STORED]:
        context.warn(
            f"{done[STORED]} weights shrink in the file only: convolutions and recurrences are restored to float when "
            "the model is loaded. onnxruntime's integer convolution with ranges found on the fly is slower than that; "
            "static quantization has faster ones."
        )
