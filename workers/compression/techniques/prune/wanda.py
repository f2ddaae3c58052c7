"""Pruning by weights and what they are multiplied with, on every kind of network."""

from functools import partial

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.weights import as_compressible
from workers.compression.pruning.apply import prunable_weights
from workers.compression.pruning.calibrated import Wanda, judging_inputs
from workers.compression.registry import implements
from workers.compression.specs.steps.prune_weights import WandaPrune
from workers.compression.techniques.prune.judging import prune_judged


@implements(WandaPrune)
def prune_by_wanda(model: Model, spec: WandaPrune, context: Context) -> Model:
    """Zeroes weights in place; embedding tables stay, for nothing is multiplied with them."""
    model = as_compressible(model)
    weights = prunable_weights(model, spec, tables=False)
    judging = partial(judging_inputs, spec=spec, criterion=partial(Wanda, fit=spec.fit))
    return prune_judged(model, weights, spec, judging, context)
