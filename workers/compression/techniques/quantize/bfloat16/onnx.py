"""bfloat16 storage of ONNX weights.

Weights, biases and norms are stored as bfloat16 and cast back in the graph; onnxruntime folds the casts when it loads
the model, and casts rows of tables as they are looked up. It computes in float32: it has no CPU kernels for bfloat16.
"""

import numpy as np

from workers.compression.context import Context
from workers.compression.families.model import Array, Model
from workers.compression.families.onnx.editing import Editor, raise_opset
from workers.compression.families.onnx.float_forms import BFLOAT16_OPSET, store_cast
from workers.compression.families.onnx.float_weights import FloatWeight, float_weights, is_selected
from workers.compression.families.onnx.model import as_onnx
from workers.compression.families.onnx.walking import array
from workers.compression.quantization.narrow_floats import DTYPES, rounded
from workers.compression.registry import implements
from workers.compression.specs.errors import NumericalFailure, UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.quantize import BFloat16Quantize

SMALLEST_WEIGHT = 128


@implements(BFloat16Quantize, formats=(ModelFormat.ONNX,))
def store_in_bfloat16(model: Model, spec: BFloat16Quantize, context: Context) -> Model:
    """Rounds every selected float32 tensor of ``model`` to bfloat16, in place."""
    model = as_onnx(model)
    raise_opset(model.proto, BFLOAT16_OPSET)
    editor = Editor(model.proto)
    candidates = list(float_weights(editor.index, SMALLEST_WEIGHT, any_rank=True))
    chosen = [weight for weight in candidates if is_selected(weight, spec.include, spec.exclude)]
    if not chosen:
        raise UnsupportedTechnique(
            f"None of the model's {len(candidates)} float32 tensors of at least {SMALLEST_WEIGHT} elements is selected."
        )
    for count, weight in enumerate(chosen):
        context.progress(count / len(chosen), weight.layer)
        store_cast(editor, weight, _rounded(weight))
    editor.apply()
    model.changed()
    context.changed(f"{len(chosen)} of {len(candidates)} tensors stored as bfloat16")
    return model


def _rounded(weight: FloatWeight) -> Array:
    """The nearest bfloat16 of each value; infinities, which masks are made of, stay, and nothing else becomes one."""
    values = array(weight.tensor).astype(np.float32)
    if np.isnan(values).any():
        raise NumericalFailure(
            f"{weight.value.name} of {weight.layer} holds NaN.", hint="Repair the model, or exclude the layer."
        )
    return np.where(np.isinf(values), values, rounded(values, "bfloat16")).astype(DTYPES["bfloat16"])
