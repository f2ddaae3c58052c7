"""Weights of networks of every format as integers of few bits."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np

from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.model import Model
from workers.compression.families.weights import (
    CompressibleModel,
    LayerInputs,
    Weight,
    WeightForm,
    as_compressible,
    finite_matrix,
    selected,
)
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.form_sizes import uniform_bits
from workers.compression.quantization.resuming import resumed, resumed_in_turn
from workers.compression.quantization.rounding import is_usable, quantize_matrix
from workers.compression.quantization.uniform import Grid, Parameters, UniformWeight
from workers.compression.specs.errors import DatasetMismatch, UnsupportedTechnique
from workers.compression.specs.steps.quantize_weights import WeightOnlyQuantize

SMALLEST_WEIGHT = 1024
"""Elements of a weight; what restores a smaller one takes more than its integers save."""


def store_in_few_bits(model: Model, spec: WeightOnlyQuantize, context: Context) -> CompressibleModel:
    """Stores the selected weights as integers; goes on where an attempt that was cut off had stood.

    Raises:
        UnsupportedTechnique: No weight is selected and can be stored so.
        NumericalFailure: A weight holds NaN or infinity.
    """
    model = as_compressible(model)
    large, chosen = selected(model, spec.include, spec.exclude, SMALLEST_WEIGHT)
    weights = list(_storable(model, chosen, spec, context))
    if not weights:
        raise UnsupportedTechnique(
            f"None of the model's {len(large)} weights of at least {SMALLEST_WEIGHT} values is selected and can be "
            f"stored in {spec.bits} bits.",
            hint="Check include and exclude, or choose larger groups.",
        )
    if spec.required():
        # All forms first: the model is watched while they are made, and storing one would change what enters others.
        model.store(list(resumed_in_turn(weights, partial(_watched, model, spec, context), spec, context)))
    else:
        model.store(resumed(weights, partial(_form, model, spec, inputs=None), spec, context))
    size = {"group": f" of {spec.group_size}", "block": f" of {spec.group_size} by {spec.group_size}"}
    context.changed(
        f"{len(weights)} of {len(large)} weights stored as {spec.bits}-bit integers ({spec.algorithm}, {spec.scheme}), "
        f"a scale per {spec.granularity}{size.get(spec.granularity, '')}"
    )
    return model


def _storable(
    model: CompressibleModel, weights: Iterable[Weight], spec: WeightOnlyQuantize, context: Context
) -> Iterator[Weight]:
    """Weights that the format can store and that get smaller; tells of the others."""
    for weight in weights:
        if weight.role == "embedding" and not spec.embeddings:
            continue
        reason = model.why_not(weight, _outline(weight, spec))
        if uniform_bits(_blocks(weight, spec), spec.bits, spec.scheme) >= weight.size * _bits_of(weight):
            reason = "scales would take more room than its integers save"
        if reason is None:
            yield weight
        else:
            context.warn(f"{weight.layer} stays {weight.dtype}: {reason}")


def _watched(
    model: CompressibleModel, spec: WeightOnlyQuantize, context: Context, weights: Sequence[Weight]
) -> Iterator[tuple[Weight, WeightForm]]:
    """Forms by what enters the layers; tables and layers that cannot be watched come last, rounded to nearest."""
    rows = _calibration(spec, context)
    left = {weight.name: weight for weight in weights}
    layers = [weight for weight in weights if weight.role != "embedding"]
    for weight, inputs in model.layer_inputs(layers, rows, context.threads):
        if is_usable(inputs):
            del left[weight.name]
            yield weight, _form(model, spec, weight, inputs)
    blind = [weight.layer for weight in left.values() if weight.role != "embedding"]
    if blind:
        others = f" and {len(blind) - 1} more" if len(blind) > 1 else ""
        context.warn(
            f"{blind[0]}{others} rounded to nearest: what enters the layer cannot be watched, or is zero or not finite "
            "on the calibration rows"
        )
    for weight in left.values():
        yield weight, _form(model, spec, weight, None)


def _calibration(spec: WeightOnlyQuantize, context: Context) -> Dataset:
    dataset = context.any_data()
    if dataset is None:
        raise DatasetMismatch(
            f"{spec.algorithm} watches what enters each layer on calibration data; none was given.",
            hint="Give calibration data, or choose algorithm rtn or hqq.",
        )
    return dataset.limited(spec.samples)


def _form(
    model: CompressibleModel, spec: WeightOnlyQuantize, weight: Weight, inputs: LayerInputs | None
) -> UniformWeight:
    return quantize_matrix(
        finite_matrix(model, weight),
        algorithm=spec.algorithm,
        bits=spec.bits,
        scheme=spec.scheme,
        blocks=_blocks(weight, spec),
        range=spec.range,
        inputs=inputs,
    )


def _blocks(weight: Weight, spec: WeightOnlyQuantize) -> Blocks:
    return Blocks.of_matrix(weight.matrix_shape, spec.granularity, spec.group_size)


def _outline(weight: Weight, spec: WeightOnlyQuantize) -> UniformWeight:
    """What a form will look like, without memory of its own."""
    grid, blocks = Grid.of(spec.scheme, spec.bits), _blocks(weight, spec)
    one, none = np.float32(1), grid.dtype(0)
    parameters = Parameters(
        np.broadcast_to(one, blocks.counts),
        np.broadcast_to(none, blocks.counts) if spec.scheme == "affine" else None,
        np.broadcast_to(one, blocks.counts) if spec.scheme == "minmax" else None,
    )
    return UniformWeight(np.broadcast_to(none, blocks.shape), parameters, grid, blocks)


def _bits_of(weight: Weight) -> int:
    return {"float64": 64, "float32": 32}.get(weight.dtype, 16)
