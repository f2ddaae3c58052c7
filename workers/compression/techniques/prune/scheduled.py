"""From a step that prunes on a schedule to the training that does it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.trainable import as_trainable
from workers.compression.families.weights import Weight, as_compressible
from workers.compression.pruning.apply import chosen_masks, tell
from workers.compression.specs.pruning_schedule import PruningSchedule
from workers.compression.specs.steps.prune_weights import MagnitudePrune
from workers.compression.training.masking import Importances
from workers.compression.training.pruning import prune_while_training


def prune_on_schedule(
    model: Model, weights: Sequence[Weight], spec: MagnitudePrune, schedule: PruningSchedule, context: Context
) -> Model:
    """Trains the model in place while weights of smallest magnitude become zero; biases and norms learn with them."""

    def largest(importances: Importances, sparsity: float) -> list[npt.NDArray[np.generic]]:
        scores = [
            np.asarray(weight.to_matrix(values), np.float32)
            for weight, values in zip(weights, importances, strict=True)
        ]
        masks = chosen_masks(weights, scores, sparsity, spec)
        return [weight.from_matrix(mask) for weight, mask in zip(weights, masks, strict=True)]

    learner = as_trainable(model)
    prune_while_training(learner, weights, spec.sparsity or 0.0, schedule, largest, context)
    return tell(as_compressible(learner), weights, context)
