"""bfloat16 storage of torch weights.

They are computed with in the model's own type, since bfloat16 is several times slower on a processor without
instructions for it: an exported program casts them back, a Hugging Face folder still names the type to load in.
"""

import torch

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.torch.weights import FloatWeight, as_torch
from workers.compression.quantization.narrow_floats import rounded
from workers.compression.registry import implements
from workers.compression.specs.errors import NumericalFailure, UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.quantize import BFloat16Quantize

SMALLEST_WEIGHT = 128
_WIDE = (torch.float32, torch.float64)


@implements(BFloat16Quantize, formats=(ModelFormat.PT2, ModelFormat.HUGGINGFACE))
def store_in_bfloat16(model: Model, spec: BFloat16Quantize, context: Context) -> Model:
    """Rounds every selected float32 or float64 tensor of ``model`` to bfloat16, in place."""
    model = as_torch(model)
    wide = [
        weight
        for weight in model.float_weights()
        if weight.values.dtype in _WIDE and weight.values.numel() >= SMALLEST_WEIGHT
    ]
    chosen = [weight for weight in wide if weight.is_selected(spec.include, spec.exclude)]
    if not chosen:
        raise UnsupportedTechnique(
            f"None of the model's {len(wide)} float32 tensors of at least {SMALLEST_WEIGHT} elements is selected."
        )
    for count, weight in enumerate(chosen):
        context.progress(count / len(chosen), weight.name)
        model.replace_values(weight.name, _rounded(weight))
        model.store_as(weight.name, torch.bfloat16)
    context.changed(f"{len(chosen)} of {len(wide)} tensors stored as bfloat16")
    return model


def _rounded(weight: FloatWeight) -> torch.Tensor:
    """The nearest bfloat16 of each value; infinities, which masks are made of, stay, and nothing else becomes one."""
    values = weight.values
    if bool(values.isnan().any()):
        raise NumericalFailure(f"{weight.name} holds NaN.", hint="Repair the model, or exclude the layer.")
    finite = torch.nan_to_num(values.float())
    nearest = torch.from_numpy(rounded(finite.numpy(), "bfloat16")).to(values.dtype)
    return torch.where(values.isinf(), values, nearest)
