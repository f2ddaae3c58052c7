"""Which layers get a low-rank update, and what else learns beside the updates."""

import math
from dataclasses import dataclass

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.trainable import Trainable, TrainableModel, as_trainable
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.step import selects
from workers.compression.specs.steps.finetune import LoraFinetune
from workers.compression.training import lessons
from workers.compression.training.network import Network

RATE = 1e-3
"""Updates start from zero and are scaled down, so they bear a higher rate than weights do."""


@dataclass(frozen=True)
class Setting:
    """A model that is about to get updates.

    Args:
        model: With a fitting last layer.
        trainable: Its network, all but the last layer frozen.
        rows: What it learns from.
        weights: The module's names of the weights that get an update.
        fresh_head: Whether the last layer is a new one.
    """

    model: TrainableModel
    trainable: Trainable
    rows: lessons.TrainingRows
    weights: tuple[str, ...]
    fresh_head: bool


def prepare(model: Model, spec: LoraFinetune, context: Context) -> Setting:
    """Chooses the layers; the last one learns as a whole, since there is no old knowledge in it to keep.

    Raises:
        UnsupportedTechnique: No layer is selected, or an update would be larger than each of them.
    """
    rows = lessons.training_rows(spec, context)
    original = as_trainable(model)
    learner = lessons.with_fitting_head(original, spec, rows, context)
    trainable = learner.trainable()
    last = set(trainable.layers[-1])
    lessons.freeze(trainable, [name for names in trainable.layers[:-1] for name in names])
    candidates = [name for name in trainable.linear if name not in last]
    chosen = [name for name in candidates if _is_selected(trainable.names[name], spec)]
    fitting = tuple(name for name in chosen if _is_smaller(trainable, name, spec.rank))
    if not fitting:
        raise UnsupportedTechnique(
            f"Of {len(candidates)} linear layers and convolutions before the last layer {len(chosen)} are selected, "
            f"none of which is larger than an update of rank {spec.rank}.",
            reason="no_layer",
            hint="Choose a smaller rank, or widen include and exclude.",
        )
    return Setting(learner, trainable, rows, fitting, fresh_head=learner is not original)


def train(setting: Setting, network: Network, spec: LoraFinetune, context: Context) -> None:
    """Trains the updates and the last layer."""
    objective = lessons.labelled_objective(spec, setting.trainable, setting.rows.train)
    course = lessons.Course(objective, objective, RATE)
    lessons.run(setting.model, setting.trainable, network, setting.rows, course, spec, context)


def _is_selected(name: str, spec: LoraFinetune) -> bool:
    """Globs go by the layer's name or the weight's."""
    names = (name, name.rpartition(".")[0])
    included = any(selects(candidate, spec.include, ()) for candidate in names)
    return included and all(selects(candidate, (), spec.exclude) for candidate in names)


def _is_smaller(trainable: Trainable, name: str, rank: int) -> bool:
    shape = trainable.module.get_parameter(name).shape
    return rank * (shape[0] + math.prod(shape[1:])) < math.prod(shape)
