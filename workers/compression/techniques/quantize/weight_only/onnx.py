"""Integers of few bits for the weights of ONNX models."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.registry import implements
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.quantize_weights import WeightOnlyQuantize
from workers.compression.techniques.quantize.weight_only.networks import store_in_few_bits


@implements(WeightOnlyQuantize, formats=(ModelFormat.ONNX,))
def weight_only_onnx(model: Model, spec: WeightOnlyQuantize, context: Context) -> Model:
    """Stores weights as integers of few bits."""
    return store_in_few_bits(model, spec, context)
