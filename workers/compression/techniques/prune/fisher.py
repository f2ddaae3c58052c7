"""Pruning by the loss that each weight costs to second order, on every kind of network."""

from functools import partial

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.weights import as_compressible
from workers.compression.pruning.apply import prunable_weights
from workers.compression.pruning.gradients import judging_gradients
from workers.compression.registry import implements
from workers.compression.specs.steps.prune_weights import FisherPrune
from workers.compression.techniques.prune.judging import prune_judged


@implements(FisherPrune)
def prune_by_fisher(model: Model, spec: FisherPrune, context: Context) -> Model:
    """Zeroes weights in place; embedding tables stay unless the step names them."""
    model = as_compressible(model)
    weights = prunable_weights(model, spec, tables=False)
    return prune_judged(model, weights, spec, partial(judging_gradients, spec=spec, order=2), context)
