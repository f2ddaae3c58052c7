"""Distillation of hidden states and attention relations besides the outputs."""

import torch
from torch import nn

from workers.compression.context import Context
from workers.compression.data import first_feeds
from workers.compression.families.model import Model
from workers.compression.families.torch.running import tensors_of
from workers.compression.families.trainable import Trainable, TrainableModel, as_trainable
from workers.compression.registry import implements
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.steps.distill import FeaturesDistill
from workers.compression.training import lessons
from workers.compression.training.failures import explaining_calls
from workers.compression.training.features import (
    KINDS,
    AttentionRelations,
    HiddenStates,
    hidden_pairs,
    relation_heads,
)
from workers.compression.training.feeding import Teacher, reads_other_tokens
from workers.compression.training.objectives import Mixed, Objective
from workers.compression.training.teaching import Pupil, follow_outputs

Shapes = dict[str, tuple[int, ...]]


@implements(FeaturesDistill)
def distill_features(model: Model, spec: FeaturesDistill, context: Context) -> Model:
    """Trains the student to follow the original inside, where shapes allow, and in its outputs.

    Raises:
        UnsupportedTechnique: No hidden state and no attention of the two can be compared.
    """
    pupil = Pupil.of(model, spec, context)
    teacher = Teacher(pupil.teacher.model, as_trainable(pupil.teacher.model).trainable())
    following = follow_outputs(pupil.model, pupil.trainable, teacher, context, spec.temperature)
    objective, judged_by = pupil.with_labels(following, spec)
    inside = _inside(pupil, teacher, spec, context)
    objective = Mixed(((1.0, objective), *inside))
    rate = lessons.customary_rate(pupil.trainable)
    course = lessons.Course(objective, judged_by, rate, teacher, via=_tapped(pupil.trainable))
    lessons.run(pupil.model, pupil.trainable, pupil.network, pupil.rows, course, spec, context)
    pupil.model.adopt(pupil.trainable)
    return pupil.model


def _inside(pupil: Pupil, teacher: Teacher, spec: FeaturesDistill, context: Context) -> list[tuple[float, Objective]]:
    mine = _shapes(pupil.model, pupil.trainable, pupil)
    theirs = _shapes(as_trainable(teacher.model), _trainable(teacher), pupil)
    if reads_other_tokens(pupil.model, teacher.model):
        mine, theirs = _without_tokens(mine), _without_tokens(theirs)
        context.log("what is told token by token is not compared: student and original have tokenizers of their own")
    found: list[tuple[float, Objective]] = []
    pairs = hidden_pairs(_hidden(mine), _hidden(theirs), (mine, theirs))
    if pairs and spec.hidden > 0.0:
        found.append((spec.hidden, HiddenStates(tuple(pairs))))
        context.log(f"{len(pairs)} of {len(_hidden(mine))} hidden states follow the original's")
    relations = _relations(mine, theirs)
    if relations is not None and spec.attention > 0.0:
        found.append((spec.attention, relations))
        context.log(f"attention layer {relations.student} follows layer {relations.teacher} in {relations.heads} heads")
    if not found:
        raise UnsupportedTechnique(
            "Student and original have no hidden state of the same shape and no attention in common.",
            reason="no_common_features",
            hint="Use distill.logits, which compares outputs only.",
        )
    return found


def _relations(mine: Shapes, theirs: Shapes) -> AttentionRelations | None:
    """The last attention layers of both, where both tell queries, keys and values apart."""
    layers = [[int(name.partition(".")[2]) for name in side if name.startswith("query.")] for side in (mine, theirs)]
    if not all(layers):
        return None
    student, teacher = max(layers[0]), max(layers[1])
    names = [(side, f"{kind}.{layer}") for side, layer in ((mine, student), (theirs, teacher)) for kind in KINDS]
    if not all(name in side for side, name in names):
        return None
    return AttentionRelations(student, teacher, relation_heads([side[name][-1] for side, name in names]))


def _without_tokens(shapes: Shapes) -> Shapes:
    return {name: shape for name, shape in shapes.items() if len(shape) == 1}


def _hidden(shapes: Shapes) -> list[str]:
    return [name for name in shapes if not name.startswith(("query.", "key.", "value."))]


def _shapes(model: TrainableModel, trainable: Trainable, pupil: Pupil) -> Shapes:
    """Of every hidden state that is no output, without the axis of rows, in the order of the taps."""
    # Programs that were exported for batches of any length mostly take no batch of one row.
    feeds = first_feeds(pupil.rows.train, model.inputs, model.tokenizer_file(), trainable.compute_batch or 2)
    trainable.module.eval()
    with explaining_calls(), torch.no_grad():
        outputs, features = _tapped(trainable)(*tensors_of(feeds, model.inputs).values())
    hidden = [name for name in trainable.taps if not any(features[name] is output for output in outputs)]
    return {name: tuple(features[name].shape[1:]) for name in hidden}


def _trainable(teacher: Teacher) -> Trainable:
    if teacher.trainable is None:
        raise TypeError("the teacher has no network")
    return teacher.trainable


def _tapped(trainable: Trainable) -> nn.Module:
    if trainable.tapped is None:
        raise UnsupportedTechnique("The model's hidden states cannot be told apart.", reason="no_common_features")
    return trainable.tapped
