"""Second-order pruning with an update of the weights that stay, on every kind of network."""

from functools import partial

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.weights import as_compressible
from workers.compression.pruning.apply import prunable_weights, prune_weights
from workers.compression.pruning.calibrated import SparseGpt, judging_inputs
from workers.compression.registry import implements
from workers.compression.specs.steps.prune_weights import SparseGptPrune


@implements(SparseGptPrune)
def prune_by_sparsegpt(model: Model, spec: SparseGptPrune, context: Context) -> Model:
    """Changes weights in place; embedding tables stay, for nothing is multiplied with them."""
    model = as_compressible(model)
    weights = prunable_weights(model, spec, tables=False)
    judge = judging_inputs(model, context, spec, partial(SparseGpt, fit=spec.fit))
    return prune_weights(model, weights, spec, judge, context)
