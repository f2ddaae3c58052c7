"""Dynamic 8-bit quantization of ONNX models with standard operators.

Matrix products with a stored right side become ``MatMulInteger`` on activations that ``DynamicQuantizeLinear``
quantizes on the fly, embedding tables become integer rows with a scale each. Convolutions keep computing in float:
onnxruntime's ``ConvInteger`` is several times slower than its float kernel, so only their storage shrinks.
"""

from collections import Counter

import numpy as np
import numpy.typing as npt

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
from workers.compression.techniques.quantize.affine import Grid
from workers.compression.techniques.quantize.dynamic.integer_products import ProductWriter, is_matrix_product
from workers.compression.techniques.quantize.integer_layers.calibration import calibrate
from workers.compression.techniques.quantize.integer_layers.judging import Judge
from workers.compression.techniques.quantize.integer_layers.plan import candidates
from workers.compression.techniques.quantize.onnx_storage import STORED, store_as_integers
from workers.compression.techniques.quantize.targets import weight_grid

OPSET = 11
SMALLEST_WEIGHT = 1024
"""Scales and zero points would eat what quantizing fewer elements saves."""

SMOOTHING_ROWS = 32

_PRODUCT = "matrix products of integers"


@implements(DynamicQuantize, formats=(ModelFormat.ONNX,))
def quantize_dynamically(model: Model, spec: DynamicQuantize, context: Context) -> Model:
    """Replaces every selected weight of ``model`` in place."""
    model = as_onnx(model)
    raise_opset(model.proto, OPSET)
    grid = weight_grid(context.target, spec.scheme)
    editor = Editor(model.proto)
    found = list(float_weights(editor.index, SMALLEST_WEIGHT))
    weights = [weight for weight in found if is_selected(weight, spec.include, spec.exclude)]
    writer = ProductWriter(editor, grid, spec.granularity, _smoothing(model, weights, grid, spec, context))
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


def _smoothing(
    model: OnnxModel, weights: list[FloatWeight], grid: Grid, spec: DynamicQuantize, context: Context
) -> dict[str, npt.NDArray[np.float32]]:
    """Factors per weight by what the user's rows show; made-up rows mislead more than they help."""
    data = context.any_data()
    if data is None:
        return {}
    index = Index.of(model.proto)
    names = {weight.value.name for weight in weights}
    products = [
        candidate
        for candidate in candidates(index, list(float_weights(index, SMALLEST_WEIGHT)))
        if candidate.weight.value.name in names and not candidate.convolution
    ]
    if not products:
        return {}
    entering = list(dict.fromkeys(candidate.entering.name for candidate in products))
    try:
        calibration = calibrate(model, entering, data.limited(SMOOTHING_ROWS), "minmax", context)
    except EngineError as error:
        context.log(f"activations are not smoothed: {error.detail}")
        return {}
    judged = Judge(calibration, grid, spec.granularity, opset_of(model.proto)).judge(products)
    return {
        found.choice.candidate.weight.value.name: found.choice.factors
        for found in judged
        if found.choice.factors is not None
    }


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
    if writer.factors:
        context.changed(f"outliers of {len(writer.factors)} products' activations moved into their weights")
    kind = "int8" if writer.grid.signed else "uint8"
    context.log(f"weights of matrix products: {kind}, {writer.grid.bits} bits of range")
    if done[STORED]:
        context.warn(
            f"{done[STORED]} weights shrink in the file only: convolutions and recurrences are restored to float when "
            "the model is loaded, because their integer kernels with ranges found on the fly are slower."
        )
