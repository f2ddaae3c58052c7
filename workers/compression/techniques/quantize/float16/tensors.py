"""Half-precision storage of bare tensors."""

import torch

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.tensors.model import as_tensors
from workers.compression.registry import implements
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.step import selects
from workers.compression.specs.steps.quantize import Float16Quantize
from workers.compression.techniques.quantize.float16.range import fits_half

_WIDE = (torch.float32, torch.float64)


@implements(Float16Quantize, formats=(ModelFormat.SAFETENSORS, ModelFormat.TORCH_STATE_DICT))
def store_in_half_precision(model: Model, spec: Float16Quantize, context: Context) -> Model:
    """Gives every selected float32 or float64 tensor as float16; values are converted when they are written."""
    model = as_tensors(model)
    tensors = dict(model.stored)
    converted = 0
    for count, (name, tensor) in enumerate(model.stored.items()):
        context.progress(count / len(tensors), name)
        if not tensor.is_plain or tensor.dtype not in _WIDE or not selects(name, spec.include, spec.exclude):
            continue
        if fits_half(name, tensor.load(), context):
            tensors[name] = tensor.converted(torch.float16)
            converted += 1
    if not converted:
        raise UnsupportedTechnique("None of the model's float32 tensors is selected and fits float16.")
    context.changed(f"{converted} of {len(tensors)} tensors stored as float16")
    return model.with_tensors(tensors)
