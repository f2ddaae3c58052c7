"""Magnitude pruning of every kind of network and of bare tensors."""

from functools import partial

import numpy as np

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.weights import CompressibleModel, Floats, Weight, as_compressible, selected
from workers.compression.registry import implements
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.steps.prune_weights import MagnitudePrune
from workers.compression.techniques.prune.thresholds import zero_below, zero_smallest
from workers.compression.tolerance.finding import find_shares
from workers.compression.tolerance.prunable import PrunableWeights


@implements(MagnitudePrune)
def prune_by_magnitude(model: Model, spec: MagnitudePrune, context: Context) -> Model:
    """Zeroes the smallest weights of the selected layers in place; biases and norms are left alone."""
    model = as_compressible(model)
    candidates, weights = selected(model, spec.include, spec.exclude, smallest=1)
    if not weights:
        raise UnsupportedTechnique(
            f"None of the model's {len(candidates)} float weight matrices is selected for pruning."
        )
    if spec.schedule is not None:
        # Only schedules train, and so need torch.
        from workers.compression.techniques.prune.scheduled import prune_on_schedule  # noqa: PLC0415

        return prune_on_schedule(model, weights, spec, spec.schedule, context)
    matrices = [np.array(model.matrix(weight)) for weight in weights]
    if spec.max_drop is not None:
        found = find_shares(model, PrunableWeights(model, weights, partial(_pruned, model)), spec.max_drop, context)
        for weight, matrix in zip(weights, matrices, strict=True):
            zero_smallest([matrix], found.shares[weight.name], "layer")
        zeros = sum(matrix.size - int(np.count_nonzero(matrix)) for matrix in matrices)
    elif spec.threshold is not None:
        zeros = zero_below(matrices, spec.threshold)
    else:
        zeros = zero_smallest(matrices, spec.sparsity or 0.0, spec.scope)
    model.replace(zip(weights, matrices, strict=True))
    total = sum(matrix.size for matrix in matrices)
    context.changed(f"{zeros} of {total} weights in {len(weights)} tensors are zero")
    context.warn("Zeros alone do not shrink the file or speed it up: it stores them like any other value.")
    return model


def _pruned(model: CompressibleModel, weight: Weight, sparsity: float) -> Floats:
    matrix = np.array(model.matrix(weight))
    zero_smallest([matrix], sparsity, "layer")
    return matrix
