"""Magnitude pruning of ONNX models, wherever their weights are stored."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.onnx.float_weights import FloatWeight, float_weights, is_selected
from workers.compression.families.onnx.model import as_onnx
from workers.compression.families.onnx.walking import Index, array
from workers.compression.registry import implements
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.prune import MagnitudePrune
from workers.compression.techniques.prune.thresholds import zero_smallest


@implements(MagnitudePrune, formats=(ModelFormat.ONNX,))
def prune_by_magnitude(model: Model, spec: MagnitudePrune, context: Context) -> Model:
    """Zeroes the smallest weights of the selected layers in place; biases and norms are left alone."""
    model = as_onnx(model)
    candidates = list(float_weights(Index.of(model.proto)))
    weights = [weight for weight in candidates if is_selected(weight, spec.include, spec.exclude)]
    if not weights:
        raise UnsupportedTechnique(
            f"None of the model's {len(candidates)} float32 weight matrices is selected for pruning."
        )
    arrays = [array(weight.tensor).copy() for weight in weights]
    zeros = zero_smallest(arrays, spec.sparsity, spec.scope)
    for weight, values in zip(weights, arrays, strict=True):
        _put_back(weight, values.tobytes())
    model.changed()
    total = sum(values.size for values in arrays)
    context.changed(f"{zeros} of {total} weights in {len(weights)} tensors are zero")
    context.warn("Zeros alone do not shrink the file or speed it up: ONNX stores them like any other value.")
    return model


def _put_back(weight: FloatWeight, data: bytes) -> None:
    weight.tensor.ClearField("float_data")
    weight.tensor.raw_data = data
