"""A student, its teacher, and what following means for the two."""

from dataclasses import dataclass
from itertools import islice

import numpy as np

from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.model import Model
from workers.compression.families.trainable import Trainable, TrainableModel, as_trainable
from workers.compression.specs.errors import DatasetMismatch
from workers.compression.specs.formats import Task
from workers.compression.specs.messages import Port
from workers.compression.specs.steps.distill import DistillStep
from workers.compression.training import lessons
from workers.compression.training.feeding import Teacher, reads_other_tokens
from workers.compression.training.network import Network
from workers.compression.training.objectives import Labelled, Mixed, Objective, TeacherOutputs

_DISTRIBUTIONS = frozenset({"softmax", "log_softmax"})
_LOOK_ROWS = 16


@dataclass(frozen=True)
class Pupil:
    """A student with all it needs.

    Args:
        model: The student.
        trainable: Its network.
        network: The same with what keeps the structure that earlier steps made.
        rows: What it learns from.
        teacher: The job's original.
    """

    model: TrainableModel
    trainable: Trainable
    network: Network
    rows: lessons.TrainingRows
    teacher: Teacher

    @classmethod
    def of(cls, model: Model, spec: DistillStep, context: Context) -> "Pupil":
        """The model, which is the one that the step names where it names one, and the original as its teacher.

        Raises:
            DatasetMismatch: There is no original.
        """
        if context.open_original is None:
            raise DatasetMismatch("There is no original to learn from.", reason="teacher_missing")
        rows = lessons.training_rows(spec, context)
        student = as_trainable(model)
        trainable = student.trainable()
        network = lessons.structured(trainable, context)
        return cls(student, trainable, network, rows, Teacher(context.open_original()))

    def with_labels(self, following: Objective, spec: DistillStep) -> tuple[Objective, Labelled | None]:
        """The objective with the labels' share in it where they count, and what judges the student."""
        # Labels that do not count do not choose the best weights either: they may be wrong.
        if self.rows.train.task is Task.FIDELITY or spec.teacher == 1.0:
            return following, None
        labelled = lessons.plain_objective(self.trainable, self.rows.train)
        return Mixed(((spec.teacher, following), (1.0 - spec.teacher, labelled))), labelled


def follow_outputs(
    model: TrainableModel, trainable: Trainable, teacher: Teacher, context: Context, temperature: float
) -> TeacherOutputs:
    """Divergence where the outputs are class scores, distance where they are values or hidden states.

    Labels that are classes say so, those of the evaluation data too, and a teacher that answers in probabilities;
    without any, distance is right for both (arXiv:2105.08919).

    Raises:
        DatasetMismatch: The two answer in different forms.
    """
    mine, theirs = _floats(model), _floats(teacher.model)
    if len(mine) != len(theirs) or not all(_agree(left, right) for left, right in zip(mine, theirs, strict=True)):
        raise DatasetMismatch(
            f"The student answers with {_shown(mine)}, the original with {_shown(theirs)}.",
            reason="student_output",
            hint="The student has to answer as the original does: as many classes, or hidden states as wide.",
        )
    if any(len(port.shape) > 2 for port in mine) and reads_other_tokens(model, teacher.model):
        raise DatasetMismatch(
            "Student and original answer token by token, and cut text into tokens differently.",
            reason="student_output",
            hint="Take a student with the original's tokenizer.",
        )
    known = [dataset for dataset in (context.train, context.calibration, context.evaluation_data) if dataset]
    theirs_end = _ending(teacher.model, known[0])
    classes = theirs_end in _DISTRIBUTIONS or any(dataset.task is Task.CLASSIFICATION for dataset in known)
    return TeacherOutputs(classes, temperature, trainable.output_activation, theirs_end)


def _ending(model: Model, dataset: Dataset) -> str:
    """Whether the model's answers are probabilities or their logarithms, told from a few of them.

    Scores of classes that all lie between 0 and 1 came through a sigmoid.
    """
    batches = dataset.batches(model.inputs, _LOOK_ROWS, model.tokenizer_file())
    for batch in islice(batches, 1):
        for made in model.run(batch.feeds):
            if made.ndim not in (1, 2) or not np.issubdtype(made.dtype, np.floating):
                continue
            values = np.asarray(made, np.float64).reshape(len(made), -1)
            several = values.shape[1] > 1
            if several and values.min() >= 0 and np.allclose(values.sum(axis=1), 1.0, atol=1e-3):
                return "softmax"
            if several and values.max() <= 0 and np.allclose(np.exp(values).sum(axis=1), 1.0, atol=1e-3):
                return "log_softmax"
            if values.min() >= 0 and values.max() <= 1:
                return "sigmoid"
    return "none"


def _floats(model: Model) -> list[Port]:
    return [port for port in model.outputs if "float" in port.dtype]


def _agree(left: Port, right: Port) -> bool:
    """Whether all lengths that both know, but that of the rows, are the same."""
    if len(left.shape) != len(right.shape):
        return False
    pairs = zip(left.shape[1:], right.shape[1:], strict=True)
    return all(mine == theirs for mine, theirs in pairs if _is_known(mine) and _is_known(theirs))


def _is_known(length: int | str) -> bool:
    return isinstance(length, int) and length > 0


def _shown(ports: list[Port]) -> str:
    return ", ".join(f"{port.name} {list(port.shape)}" for port in ports) or "no float output"
