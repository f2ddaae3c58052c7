"""Integers of few bits for bare tensors, a tensor at a time, so that memory does not grow with the model."""

from functools import partial

import numpy as np

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.tensors.model import TensorsModel, as_tensors
from workers.compression.families.tensors.rounding import round_to_nearest
from workers.compression.families.weights import Weight, selected
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.form_sizes import uniform_bits
from workers.compression.quantization.resuming import resumed
from workers.compression.quantization.rounding import quantize_matrix
from workers.compression.quantization.uniform import Grid, UniformWeight
from workers.compression.registry import implements
from workers.compression.specs.errors import NumericalFailure, UnsupportedTechnique
from workers.compression.specs.formats import TENSOR_FORMATS
from workers.compression.specs.steps.quantize_weights import WeightOnlyQuantize

SMALLEST_WEIGHT = 128
ROUNDED_PER_SECOND = 50e6
"""Elements that are rounded to nearest in a second, even on a busy machine."""


@implements(WeightOnlyQuantize, formats=TENSOR_FORMATS)
def store_in_few_bits(model: Model, spec: WeightOnlyQuantize, context: Context) -> Model:
    """Stores the selected matrices, kernels and tables as integers; goes on where a killed attempt stood."""
    model = as_tensors(model)
    candidates, chosen = selected(model, spec.include, spec.exclude, SMALLEST_WEIGHT)
    weights = []
    for weight in chosen:
        if not spec.embeddings and weight.role == "embedding":
            continue
        if uniform_bits(_blocks(weight, spec), spec.bits, spec.scheme) < 8 * model.stored[weight.name].nbytes:
            weights.append(weight)
        else:
            context.warn(f"{weight.name} stays {weight.dtype}: scales would take more room than its integers save.")
    if not weights:
        raise UnsupportedTechnique(
            f"None of the model's {len(candidates)} float tensors of two axes and at least {SMALLEST_WEIGHT} elements "
            f"is selected and gets smaller with {spec.bits} bits.",
            hint="Check include and exclude, or choose larger groups.",
        )
    rate = ROUNDED_PER_SECOND if _is_plain_rounding(spec) else 0.0
    model.store(resumed(weights, partial(_form, model, spec), spec, context, rate))
    made = f"{spec.bits}-bit integers, a scale per {spec.granularity}"
    context.changed(f"{len(weights)} of {len(candidates)} weights stored as {made}")
    return model


def _is_plain_rounding(spec: WeightOnlyQuantize) -> bool:
    return spec.algorithm == "rtn" and spec.range == "minmax"


def _blocks(weight: Weight, spec: WeightOnlyQuantize) -> Blocks:
    return Blocks.of_matrix(weight.matrix_shape, spec.granularity, spec.group_size)


def _form(model: TensorsModel, spec: WeightOnlyQuantize, weight: Weight) -> UniformWeight:
    blocks = _blocks(weight, spec)
    if _is_plain_rounding(spec):
        matrix = model.stored[weight.name].load().reshape(weight.matrix_shape)
        return round_to_nearest(matrix, weight.name, Grid.of(spec.scheme, spec.bits), blocks, spec.scheme)
    values = model.matrix(weight)
    if not np.isfinite(values).all():
        raise NumericalFailure(
            f"{weight.name} holds values that are not finite.", hint="Exclude it, or repair the model."
        )
    return quantize_matrix(
        values, algorithm=spec.algorithm, bits=spec.bits, scheme=spec.scheme, blocks=blocks, range=spec.range
    )
