"""Magnitude pruning of every kind of network and of bare tensors."""

from collections.abc import Iterator, Sequence

import numpy as np

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.weights import CompressibleModel, Floats, Weight, as_compressible
from workers.compression.pruning.apply import prunable_weights, tell
from workers.compression.pruning.criteria import magnitudes
from workers.compression.registry import implements
from workers.compression.specs.steps.prune_weights import MagnitudePrune
from workers.compression.techniques.prune.judging import prune_judged


@implements(MagnitudePrune)
def prune_by_magnitude(model: Model, spec: MagnitudePrune, context: Context) -> Model:
    """Zeroes the smallest weights of the selected layers in place; biases and norms are left alone."""
    model = as_compressible(model)
    weights = prunable_weights(model, spec)
    if spec.threshold is not None:
        model.replace(_above(model, weights, spec.threshold))
        return tell(model, weights, context)
    return prune_judged(model, weights, spec, lambda _model, _context: magnitudes, context)


def _above(model: CompressibleModel, weights: Sequence[Weight], threshold: float) -> Iterator[tuple[Weight, Floats]]:
    for weight in weights:
        matrix = model.matrix(weight)
        yield weight, np.where(np.abs(matrix) < threshold, np.float32(0), matrix)
