"""Distillation of the outputs."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.registry import implements
from workers.compression.specs.steps.distill import LogitsDistill
from workers.compression.training import lessons
from workers.compression.training.teaching import Pupil, follow_outputs


@implements(LogitsDistill)
def distill_logits(model: Model, spec: LogitsDistill, context: Context) -> Model:
    """Trains the student, the model itself unless the step names another, to answer as the job's original does."""
    pupil = Pupil.of(model, spec, context)
    following = follow_outputs(pupil.model, pupil.trainable, pupil.teacher, context, spec.temperature)
    objective, judged_by = pupil.with_labels(following, spec)
    rate = lessons.customary_rate(pupil.trainable)
    course = lessons.Course(objective, judged_by, rate, pupil.teacher)
    lessons.run(pupil.model, pupil.trainable, pupil.network, pupil.rows, course, spec, context)
    pupil.model.adopt(pupil.trainable)
    return pupil.model
