"""Quantization-aware training of ONNX models."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.onnx.batch_norm import fold_batch_norms
from workers.compression.families.onnx.editing import raise_opset
from workers.compression.families.onnx.model import as_onnx
from workers.compression.families.onnx.rounded_layers import round_inputs
from workers.compression.families.onnx.training.adapter import TrainableOnnx, trainable_model
from workers.compression.registry import implements
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.quantize_aware import QatQuantize
from workers.compression.techniques.quantize.qat.training import Rounded, chosen_weights, train_rounded
from workers.compression.techniques.quantize.targets import fast_weights

OPSET = 13
"""The first in which weights are dequantized per channel."""


@implements(QatQuantize, formats=(ModelFormat.ONNX,))
def train_quantized(model: Model, spec: QatQuantize, context: Context) -> Model:
    """Trains ``model`` on its grids; 8-bit layers compute on integers afterwards, others restore what they round."""
    network = prepared(model, context)
    grid = fast_weights(context.target).grid
    convert(network, train_rounded(network, chosen_weights(network, spec, context), grid, spec, context))
    return network


def prepared(model: Model, context: Context) -> TrainableOnnx:
    """The model without batch norms behind convolutions: what is trained is what is stored."""
    opened = as_onnx(model)
    raise_opset(opened.proto, OPSET)
    folded = fold_batch_norms(opened.proto)
    if folded:
        context.changed(f"{folded} batch norms folded into the layers before them")
    opened.changed()
    return trainable_model(opened)


def convert(network: TrainableOnnx, rounded: Rounded) -> None:
    """Stores the integers that were trained, in place."""
    stored = round_inputs(network.proto, rounded.weights, rounded.inputs)
    network.changed()
    network.store(pair for name, pair in rounded.weights.items() if name not in stored)
