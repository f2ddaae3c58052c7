"""Short training after compression, as a plain function for steps and other techniques.

Zeros, shared values and ties hold to the last bit afterwards, because what learns are the values that are there.
"""

from collections.abc import Callable, Mapping

import torch

from workers.compression.context import Context
from workers.compression.families.trainable import Trainable, TrainableModel
from workers.compression.specs.errors import DatasetMismatch
from workers.compression.specs.formats import Task
from workers.compression.specs.steps.finetune import RecoverFinetune
from workers.compression.specs.training import SupervisedStep
from workers.compression.training import lessons
from workers.compression.training.feeding import Teacher
from workers.compression.training.loop import Trained
from workers.compression.training.objectives import Labelled, Mixed, Objective
from workers.compression.training.teaching import follow_outputs


def recover(
    model: TrainableModel,
    spec: RecoverFinetune,
    context: Context,
    instead: Callable[[Trainable], Mapping[str, torch.nn.Module]] | None = None,
) -> Trained:
    """Trains ``model`` in place towards the labels and the job's original.

    Args:
        model: Compressed; its exact zeros in matrices, its shared values and ties stay.
        spec: How long, how fast, and how much the original counts against the labels.
        context: Its ``train`` rows need no labels; ``open_original`` gives the teacher.
        instead: Modules that compute some of the weights, by the trainable module's name; by default what keeps the
            zeros and shared values that a weight has.

    Raises:
        DatasetMismatch: There are neither labels nor an original.
    """
    rows = lessons.training_rows(spec, context)
    trainable = model.trainable()
    network = lessons.structured(trainable, context, always=True, instead=instead(trainable) if instead else None)
    course = course_towards_original(model, trainable, rows, spec, spec.teacher, context)
    trained = lessons.run(model, trainable, network, rows, course, spec, context)
    model.adopt(trainable)
    return trained


def course_towards_original(
    model: TrainableModel,
    trainable: Trainable,
    rows: lessons.TrainingRows,
    spec: SupervisedStep,
    share: float,
    context: Context,
) -> lessons.Course:
    """What a network that compression changed learns: the labels, and what the job's original answers.

    Args:
        share: How much the original counts against the labels; without labels it is all there is.

    Raises:
        DatasetMismatch: There are neither labels nor an original.
    """
    labelled = rows.train.task is not Task.FIDELITY
    judged_by: Labelled | None = lessons.labelled_objective(spec, trainable, rows.train) if labelled else None
    weight = share if judged_by is not None else 1.0
    teacher: Teacher | None = None
    objective: Objective | None = judged_by
    if weight > 0.0 and context.open_original is not None:
        teacher = Teacher(context.open_original())
        following = follow_outputs(model, trainable, teacher, context, temperature=2.0)
        objective = following if judged_by is None else Mixed(((weight, following), (1.0 - weight, judged_by)))
    if objective is None:
        raise DatasetMismatch("There are neither labels nor an original to learn from.", reason="labels_needed")
    return lessons.Course(objective, judged_by, lessons.customary_rate(trainable), teacher)
