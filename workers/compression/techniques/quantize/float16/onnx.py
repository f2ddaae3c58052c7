"""Half-precision storage of ONNX weights.

The weights are stored as float16 and cast back in the graph; onnxruntime folds the casts when it loads the model. Its
CPU kernels for float16 convert to float32 and back around every operator, so computing in half precision there is
slower than this and no smaller.
"""

import numpy as np
import numpy.typing as npt

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.onnx.editing import Editor, raise_opset
from workers.compression.families.onnx.float_weights import FloatWeight, float_weights, is_selected
from workers.compression.families.onnx.model import as_onnx
from workers.compression.families.onnx.stored_integers import store_float16
from workers.compression.families.onnx.walking import array
from workers.compression.registry import implements
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.quantize import Float16Quantize

OPSET = 9
"""``Cast`` between float16 and float32 exists in all; older graphs list initializers among their inputs."""

SMALLEST_WEIGHT = 128
LARGEST_HALF = float(np.finfo(np.float16).max)


@implements(Float16Quantize, formats=(ModelFormat.ONNX,))
def store_in_half_precision(model: Model, spec: Float16Quantize, context: Context) -> Model:
    """Rounds every selected float32 weight of ``model`` to float16, in place."""
    model = as_onnx(model)
    raise_opset(model.proto, OPSET)
    editor = Editor(model.proto)
    candidates = list(float_weights(editor.index, SMALLEST_WEIGHT, any_rank=True))
    weights = [weight for weight in candidates if is_selected(weight, spec.include, spec.exclude)]
    stored = 0
    for count, weight in enumerate(weights):
        halves = _halves(weight, context)
        if halves is not None:
            store_float16(editor, weight.value, halves)
            stored += 1
        context.progress((count + 1) / len(weights), weight.layer)
    if not stored:
        raise UnsupportedTechnique(
            f"None of the model's {len(candidates)} float32 tensors of at least {SMALLEST_WEIGHT} elements is selected "
            "and fits float16."
        )
    editor.apply()
    model.changed()
    context.changed(f"{stored} tensors stored as float16")
    return model


def _halves(weight: FloatWeight, context: Context) -> npt.NDArray[np.float16] | None:
    values = array(weight.tensor).astype(np.float32)
    if not np.abs(values).max(initial=0.0) <= LARGEST_HALF:
        context.warn(f"{weight.value.name} of {weight.layer} stays float32: it holds values beyond {LARGEST_HALF:g}.")
        return None
    return values.astype(np.float16)
