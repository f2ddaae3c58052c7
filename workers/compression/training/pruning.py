"""Pruning while a network trains, as a plain function for techniques."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from workers.compression.context import Context
from workers.compression.families.trainable import Trainable, TrainableModel
from workers.compression.families.weights import Weight
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.pruning_schedule import GradualSchedule, PruningSchedule
from workers.compression.training import lessons
from workers.compression.training.masking import Candidates, Chooser, GradualMasking, Masking, RewindMasking
from workers.compression.training.network import Network
from workers.compression.training.recovery import course_towards_original
from workers.compression.training.substitutes import Prunable, Shared, keeping_structure


def prune_while_training(
    model: TrainableModel,
    weights: Sequence[Weight],
    sparsity: float,
    schedule: PruningSchedule,
    choose: Chooser,
    context: Context,
) -> None:
    """Trains ``model`` in place while more and more of its weights become zero.

    Args:
        weights: Which may lose elements.
        sparsity: Of all of them together, in the end.
        schedule: When they go, and how the model trains.
        choose: Which elements stay; values come in the order of ``weights`` and in the form that is stored. Meanwhile
            ``model`` is as the training has made it so far, masks included.
        context: Its ``train`` rows need no labels; ``open_original`` gives the teacher.

    Raises:
        DatasetMismatch: There are neither labels nor an original.
        UnsupportedTechnique: A weight takes no part in the network, or shares values that training would set apart.
    """
    spec = schedule.recovery
    rows = lessons.training_rows(spec, context)
    trainable = model.trainable()
    prunable = _prunable(trainable, weights, context)
    network = lessons.structured(trainable, context, instead=prunable)
    course = course_towards_original(model, trainable, rows, spec, spec.teacher, context)

    def choose_by_present(candidates: Candidates, share: float) -> Sequence[npt.NDArray[np.generic]]:
        network.settle()
        model.adopt(trainable)
        return choose(candidates, share)

    masking = _masking(network, list(prunable.values()), sparsity, schedule, choose_by_present)
    lessons.run(model, trainable, network, rows, replace(course, masking=masking), spec, context)
    model.adopt(trainable)


def _prunable(trainable: Trainable, weights: Sequence[Weight], context: Context) -> Mapping[str, Prunable]:
    """By the module's name, in the order of ``weights``; zeros that earlier steps made stay."""
    named = {known: name for name, known in trainable.names.items()}
    found = {}
    for weight in weights:
        if weight.name not in named:
            raise UnsupportedTechnique(
                f"{weight.layer}: the weight {weight.name} takes no part in what trains.", hint="Exclude the layer."
            )
        values = trainable.module.get_parameter(named[weight.name])
        if context.compressed and isinstance(keeping_structure(values), Shared):
            raise UnsupportedTechnique(
                f"{weight.layer}: an earlier step made elements share values, which pruning on a schedule would undo.",
                hint="Prune first and share afterwards, or exclude the layer.",
            )
        found[named[weight.name]] = Prunable(values, keeps_zeros=context.compressed)
    return found


def _masking(
    network: Network, weights: Sequence[Prunable], sparsity: float, schedule: PruningSchedule, choose: Chooser
) -> Masking:
    if isinstance(schedule, GradualSchedule):
        return GradualMasking(weights, choose, sparsity, schedule)
    return RewindMasking(weights, choose, sparsity, schedule, network)
