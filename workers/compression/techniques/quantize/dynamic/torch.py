"""8-bit weights of torch models.

Activations stay in float: torch has no 8-bit product on CPUs that is not many times slower than its float one
(``torch._int_mm`` 27 to 91 times on AVX2). So what shrinks is the file; how fast the model runs stays the same.
"""

import numpy as np

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.torch.weights import FloatWeight, as_torch
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.uniform import Grid, UniformWeight, quantize
from workers.compression.registry import implements
from workers.compression.specs.errors import NumericalFailure, UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.quantize import DynamicQuantize

SMALLEST_WEIGHT = 1024
"""Scales would eat what quantizing fewer elements saves."""


@implements(DynamicQuantize, formats=(ModelFormat.PT2, ModelFormat.HUGGINGFACE))
def quantize_weights(model: Model, spec: DynamicQuantize, context: Context) -> Model:
    """Stores every selected matrix, kernel and table of ``model`` as 8-bit integers, in place."""
    model = as_torch(model)
    candidates = [
        weight
        for weight in model.float_weights()
        if weight.values.dim() > 1 and weight.values.numel() >= SMALLEST_WEIGHT
    ]
    selected = [weight for weight in candidates if weight.is_selected(spec.include, spec.exclude)]
    fitting = [weight for weight in selected if weight.fits_integers]
    if not fitting:
        raise UnsupportedTechnique(_why_none(candidates, selected))
    for count, weight in enumerate(fitting):
        context.progress(count / len(fitting), weight.name)
        model.store([(weight.weight, _to_int8(weight, spec))])
    context.changed(f"{len(fitting)} of {len(candidates)} weights stored as 8-bit integers; activations stay in float")
    for weight in selected:
        if not weight.fits_integers:
            context.warn(f"{weight.name} stays {weight.values.dtype}: the format cannot store this layer as integers.")
    return model


def _why_none(candidates: list[FloatWeight], selected: list[FloatWeight]) -> str:
    if not selected:
        return (
            f"None of the model's {len(candidates)} float weights of at least {SMALLEST_WEIGHT} elements is selected."
        )
    names = ", ".join(weight.name for weight in selected[:5])
    return f"The model's format cannot store any of the selected weights as integers ({names})."


def _to_int8(weight: FloatWeight, spec: DynamicQuantize) -> UniformWeight:
    values = weight.values.float().numpy()
    if not bool(weight.values.isfinite().all()):
        raise NumericalFailure(f"{weight.name} holds NaN or infinity, which integers cannot stand for.")
    matrix = np.asarray(weight.weight.to_matrix(values), np.float32)
    blocks = Blocks.of_matrix(weight.weight.matrix_shape, spec.granularity)
    return quantize(matrix, Grid(signed=spec.scheme != "affine"), blocks)
