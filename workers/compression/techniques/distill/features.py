"""Distillation of hidden states and attention relations besides the outputs."""

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
from workers.compression.training.features import AttentionRelations, HiddenStates, hidden_pairs, relation_heads
from workers.compression.training.feeding import Teacher
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
    widths = (mine[f"query.{student}"][-1], theirs[f"query.{teacher}"][-1])
    return AttentionRelations(student, teacher, relation_heads(*widths))


def _hidden(shapes: Shapes) -> list[str]:
    return [name for name in shapes if not name.startswith(("query.", "key.", "value."))]


def _shapes(model: TrainableModel, trainable: Trainable, pupil: Pupil) -> Shapes:
    """Of every hidden state without the axis of rows, in the order of the taps."""
    feeds = first_feeds(pupil.rows.train, model.inputs, model.tokenizer_file(), trainable.compute_batch or 1)
    trainable.module.eval()
    _, features = _tapped(trainable)(*tensors_of(feeds, model.inputs).values())
    return {name: tuple(features[name].shape[1:]) for name in trainable.taps}


def _trainable(teacher: Teacher) -> Trainable:
    if teacher.trainable is None:
        raise TypeError("the teacher has no network")
    return teacher.trainable


def _tapped(trainable: Trainable) -> nn.Module:
    if trainable.tapped is None:
        raise UnsupportedTechnique("The model's hidden states cannot be told apart.", reason="no_common_features")
    return trainable.tapped
