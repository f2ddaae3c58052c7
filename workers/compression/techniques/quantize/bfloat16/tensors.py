"""bfloat16 storage of bare tensors."""

import torch

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.tensors.model import as_tensors
from workers.compression.families.tensors.stored import StoredTensor
from workers.compression.registry import implements
from workers.compression.specs.errors import NumericalFailure, UnsupportedTechnique
from workers.compression.specs.formats import TENSOR_FORMATS
from workers.compression.specs.step import selects
from workers.compression.specs.steps.quantize import BFloat16Quantize

_WIDE = (torch.float32, torch.float64)
_LARGEST = torch.finfo(torch.bfloat16).max


@implements(BFloat16Quantize, formats=TENSOR_FORMATS)
def store_in_bfloat16(model: Model, spec: BFloat16Quantize, context: Context) -> Model:
    """Gives every selected float32 or float64 tensor as bfloat16; values are converted when they are written."""
    model = as_tensors(model)
    tensors = dict(model.stored)
    converted = 0
    for count, (name, tensor) in enumerate(model.stored.items()):
        context.progress(count / len(tensors), name)
        if not tensor.is_plain or tensor.dtype not in _WIDE or not selects(name, spec.include, spec.exclude):
            continue
        if _fits(name, tensor, context):
            tensors[name] = tensor.converted(torch.bfloat16)
            converted += 1
    if not converted:
        raise UnsupportedTechnique("None of the model's float32 tensors is selected and fits bfloat16.")
    context.changed(f"{converted} of {len(tensors)} tensors stored as bfloat16")
    return model.with_tensors(tensors)


def _fits(name: str, tensor: StoredTensor, context: Context) -> bool:
    """Whether no finite value becomes infinite, which only the very largest of float32 and float64 would."""
    for piece in tensor.pieces():
        if bool(piece.isnan().any()):
            raise NumericalFailure(f"{name} holds NaN.", hint="Exclude it, or repair the model.")
        rounded = piece.to(torch.bfloat16)
        if bool((rounded.isinf() & piece.isfinite()).any()):
            context.warn(f"{name} stays {tensor.dtype}: it holds values beyond {_LARGEST:g}.")
            return False
    return True
