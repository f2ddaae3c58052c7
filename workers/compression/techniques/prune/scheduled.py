"""From a step that prunes on a schedule to the training that does it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.trainable import as_trainable
from workers.compression.families.weights import Weight, as_compressible
from workers.compression.pruning.apply import check_judged, chosen_masks, tell
from workers.compression.pruning.criteria import ByScore
from workers.compression.specs.errors import NumericalFailure
from workers.compression.specs.pruning_schedule import PruningSchedule
from workers.compression.specs.steps.prune_weights import ScheduledPrune
from workers.compression.techniques.prune.judging import Judging
from workers.compression.training.masking import Candidates
from workers.compression.training.pruning import prune_while_training


def prune_on_schedule(
    model: Model,
    weights: Sequence[Weight],
    spec: ScheduledPrune,
    schedule: PruningSchedule,
    judging: Judging,
    context: Context,
) -> Model:
    """Trains the model in place while the weights that matter least become zero; biases and norms learn with them.

    What matters is judged anew at every choice, by the network that the training has come to.
    """
    learner = as_trainable(model)
    compressible = as_compressible(learner)

    def judged(chosen: Sequence[Weight]) -> Mapping[str, ByScore]:
        # The training's own threads, which those of an attempt that was cut off were; its progress is not the step's.
        aside = replace(context, threads=torch.get_num_threads(), emit=lambda _event: None)
        return {weight.name: criterion for weight, criterion in judging(compressible, aside)(chosen)}

    def choose(candidates: Candidates, sparsity: float) -> list[npt.NDArray[np.generic]]:
        matrices = [
            np.asarray(weight.to_matrix(values), np.float32)
            for weight, values in zip(prunable, candidates, strict=True)
        ]
        criteria = judged(prunable)
        _require_all(prunable, criteria)
        masks = chosen_masks(prunable, matrices, criteria, sparsity, spec)
        return [weight.from_matrix(mask) for weight, mask in zip(prunable, masks, strict=True)]

    at_first = judged(weights)
    prunable = [weight for weight in weights if weight.name in at_first]
    check_judged(prunable, weights, context)
    prune_while_training(learner, prunable, spec.sparsity or 0.0, schedule, choose, context)
    return tell(compressible, prunable, context)


def _require_all(weights: Sequence[Weight], criteria: Mapping[str, ByScore]) -> None:
    lost = next((weight.layer for weight in weights if weight.name not in criteria), None)
    if lost is not None:
        raise NumericalFailure(
            f"{lost} cannot be judged any more: in the course of the training what enters it became zero or infinite.",
            hint="Ask for a lower sparsity, exclude layers before it, or lower learning_rate.",
        )
