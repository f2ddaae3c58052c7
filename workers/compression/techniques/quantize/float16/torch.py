"""Half-precision storage of torch weights.

Weights are stored as float16 and computed with in float32: torch's CPU kernels for float16 are slower, and on a GPU
the user can still ask for half precision when loading.
"""

import torch

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.torch.weights import as_torch
from workers.compression.registry import implements
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.quantize import Float16Quantize
from workers.compression.techniques.quantize.float16.range import fits_half

SMALLEST_WEIGHT = 128
_WIDE = (torch.float32, torch.float64)


@implements(Float16Quantize, formats=(ModelFormat.PT2, ModelFormat.HUGGINGFACE))
def store_in_half_precision(model: Model, spec: Float16Quantize, context: Context) -> Model:
    """Rounds every selected float32 or float64 weight of ``model`` to float16, in place."""
    model = as_torch(model)
    wide = [
        weight
        for weight in model.float_weights()
        if weight.values.dtype in _WIDE and weight.values.numel() >= SMALLEST_WEIGHT
    ]
    stored = 0
    for count, weight in enumerate(wide):
        context.progress(count / len(wide), weight.name)
        if weight.is_selected(spec.include, spec.exclude) and fits_half(weight.name, weight.values, context):
            model.store_as(weight.name, torch.float16)
            stored += 1
    if not stored:
        raise UnsupportedTechnique(
            f"None of the model's {len(wide)} float32 tensors of at least {SMALLEST_WEIGHT} elements is selected and "
            "fits float16."
        )
    context.changed(f"{stored} of {len(wide)} tensors stored as float16")
    return model
