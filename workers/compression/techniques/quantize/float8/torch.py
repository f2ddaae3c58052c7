"""8-bit float storage of torch weights.

An exported program casts and scales them back; a Hugging Face folder holds them as ``float-quantized`` weights of
compressed-tensors, which knows e4m3 alone.
"""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.registry import implements
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.quantize import Float8Quantize
from workers.compression.techniques.quantize.float8.networks import store_in_float8


@implements(Float8Quantize, formats=(ModelFormat.PT2, ModelFormat.HUGGINGFACE))
def float8_torch(model: Model, spec: Float8Quantize, context: Context) -> Model:
    """Stores weights as 8-bit floats."""
    return store_in_float8(model, spec, context)
