"""Magnitude pruning of every kind of network and of bare tensors."""

import numpy as np

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.weights import as_compressible, selected
from workers.compression.registry import implements
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.steps.prune_weights import MagnitudePrune
from workers.compression.techniques.prune.thresholds import zero_below, zero_smallest


@implements(MagnitudePrune)
def prune_by_magnitude(model: Model, spec: MagnitudePrune, context: Context) -> Model:
    """Zeroes the smallest weights of the selected layers in place; biases and norms are left alone."""
    model = as_compressible(model)
    candidates, weights = selected(model, spec.include, spec.exclude, smallest=1)
    if not weights:
        raise UnsupportedTechnique(
            f"None of the model's {len(candidates)} float weight matrices is selected for pruning."
        )
    matrices = [np.array(model.matrix(weight)) for weight in weights]
    if spec.threshold is not None:
        zeros = zero_below(matrices, spec.threshold)
    else:
        zeros = zero_smallest(matrices, spec.sparsity or 0.0, spec.scope)
    model.replace(zip(weights, matrices, strict=True))
    total = sum(matrix.size for matrix in matrices)
    context.changed(f"{zeros} of {total} weights in {len(weights)} tensors are zero")
    context.warn("Zeros alone do not shrink the file or speed it up: it stores them like any other value.")
    return model
