"""From a step that prunes on a schedule to the training that does it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.trainable import as_trainable
from workers.compression.families.weights import Weight, as_compressible
from workers.compression.specs.pruning_schedule import PruningSchedule
from workers.compression.specs.steps.prune_weights import MagnitudePrune
from workers.compression.techniques.prune.thresholds import zero_smallest
from workers.compression.training.masking import Importances
from workers.compression.training.pruning import prune_while_training


def prune_on_schedule(
    model: Model, weights: Sequence[Weight], spec: MagnitudePrune, schedule: PruningSchedule, context: Context
) -> Model:
    """Trains the model in place while weights of smallest magnitude become zero; biases and norms learn with them."""

    def largest(importances: Importances, sparsity: float) -> list[npt.NDArray[np.bool_]]:
        left = [np.array(values) for values in importances]
        zero_smallest(left, sparsity, spec.scope)
        return [values != 0 for values in left]

    learner = as_trainable(model)
    prune_while_training(learner, weights, spec.sparsity or 0.0, schedule, largest, context)
    pruned = as_compressible(learner)
    zeros = sum(weight.size - int(np.count_nonzero(pruned.matrix(weight))) for weight in weights)
    context.changed(f"{zeros} of {sum(weight.size for weight in weights)} weights in {len(weights)} tensors are zero")
    context.warn("Zeros alone do not shrink the file or speed it up: it stores them like any other value.")
    return learner
