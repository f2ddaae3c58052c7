"""What a network is trained towards: labels by task, another network's outputs, or both."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch.nn import functional

from workers.compression.specs.errors import DatasetMismatch
from workers.compression.specs.formats import Task

_SCALE = 20.0
"""Of cosines in CoSENT, as sentence-transformers sets it."""
_TINY = 1e-12


@dataclass(frozen=True)
class Rows:
    """A batch on the device of the network.

    Args:
        inputs: In the order of the network's inputs.
        count: Rows; with ``pairs`` the inputs hold the first texts of all rows and then the second ones.
        targets: Class indices (int64) [n] or values (float32) [n, m], if there are labels.
        mask: The attention mask [n, tokens], where there is one.
        teacher: The teacher's float outputs for the same rows.
        teacher_features: The teacher's hidden states and attention projections by name.
    """

    inputs: tuple[torch.Tensor, ...]
    count: int
    targets: torch.Tensor | None = None
    pairs: bool = False
    mask: torch.Tensor | None = None
    teacher: tuple[torch.Tensor, ...] = ()
    teacher_features: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """What the network made of a batch: outputs, and hidden states by name where they were asked for."""

    outputs: tuple[torch.Tensor, ...]
    features: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def floats(self) -> tuple[torch.Tensor, ...]:
        """The outputs that gradients can come from."""
        return tuple(output for output in self.outputs if output.is_floating_point())


class Objective(Protocol):
    """Something to minimize."""

    def loss(self, made: Made, rows: Rows) -> torch.Tensor:
        """The mean over the rows, a 0-d tensor."""


class Labelled(Objective, Protocol):
    """Something to minimize that labels judge."""

    @property
    def metric(self) -> str:
        """What the predictions are judged by, as in the report."""

    def predictions(self, made: Made, rows: Rows) -> torch.Tensor:
        """Per row what the metric reads: a class index, values or a similarity."""


@dataclass(frozen=True)
class Classes:
    """Cross-entropy.

    Args:
        activation: What the network ends with: ``none``, ``softmax``, ``log_softmax`` or ``sigmoid``.
        weights: One per class, or None.
        smoothing: Share of the target spread over all classes (arXiv:1512.00567).
    """

    activation: str = "none"
    weights: torch.Tensor | None = None
    smoothing: float = 0.0
    metric: str = "accuracy"

    def loss(self, made: Made, rows: Rows) -> torch.Tensor:
        """Mean cross-entropy; with ``weights`` the weighted mean."""
        scores, targets = class_scores(made.floats, self.activation), _given(rows.targets)
        _check_classes(scores, targets)
        weights = None if self.weights is None else self.weights.to(scores.device)
        return functional.cross_entropy(scores, targets, weight=weights, label_smoothing=self.smoothing)

    def predictions(self, made: Made, rows: Rows) -> torch.Tensor:
        """The class of the highest score."""
        return class_scores(made.floats, self.activation).argmax(dim=1)


@dataclass(frozen=True)
class Values:
    """Squared error in units of the targets' variance, so that rates do not depend on their scale."""

    variance: float
    metric: str = "rmse"

    def loss(self, made: Made, rows: Rows) -> torch.Tensor:
        """Mean squared error over the variance."""
        targets = _given(rows.targets)
        return functional.mse_loss(self.predictions(made, rows), targets) / max(self.variance, _TINY)

    def predictions(self, made: Made, rows: Rows) -> torch.Tensor:
        """The values [n, m]."""
        targets = _given(rows.targets)
        values = next((output.reshape(rows.count, -1) for output in made.floats if len(output) == rows.count), None)
        if values is None or values.shape != targets.shape:
            raise DatasetMismatch(
                f"The target has {targets.shape[1]} values per row; the model's outputs are of the shapes "
                f"{', '.join(str(list(output.shape)) for output in made.outputs)}."
            )
        return values


@dataclass(frozen=True)
class Similarities:
    """Cosines of two texts' vectors in the order of their targets, whatever the targets' scale (CoSENT, 2022)."""

    pooling: str
    metric: str = "spearman"

    def loss(self, made: Made, rows: Rows) -> torch.Tensor:
        """log(1 + sum of exp(scale * (cosine of a less similar pair - cosine of a more similar one)))."""
        cosines = self.predictions(made, rows) * _SCALE
        targets = _given(rows.targets).reshape(-1)
        wrong = cosines[:, None] - cosines[None, :]
        ordered = targets[:, None] < targets[None, :]
        return torch.logsumexp(torch.cat((cosines.new_zeros(1), wrong[ordered])), dim=0)

    def predictions(self, made: Made, rows: Rows) -> torch.Tensor:
        """The cosine of each pair."""
        vectors = pooled(made.floats[0], rows.mask, self.pooling)
        first, second = vectors.reshape(len(vectors), -1).chunk(2)
        return functional.cosine_similarity(first, second, dim=1)


@dataclass(frozen=True)
class TeacherOutputs:
    """The outputs follow the teacher's (arXiv:1503.02531).

    Args:
        classes: Whether the outputs are class scores: divergence of the softened distributions, else squared error in
            units of the teacher's variance.
        temperature: Softens both distributions; the loss is scaled by its square, so that gradients keep their size.
        activation: What both networks end with.
    """

    classes: bool
    temperature: float
    activation: str = "none"
    teacher_activation: str = "none"

    def loss(self, made: Made, rows: Rows) -> torch.Tensor:
        """Mean over the rows, or over the values."""
        if self.classes:
            student = class_scores(made.floats, self.activation) / self.temperature
            teacher = class_scores(rows.teacher, self.teacher_activation) / self.temperature
            _check_same_shape(student, teacher)
            log_student, log_teacher = student.log_softmax(dim=1), teacher.log_softmax(dim=1)
            divergence = functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
            return divergence * self.temperature**2
        pairs = list(zip(made.floats, rows.teacher, strict=True))
        return torch.stack([_distance(student, teacher, rows.mask) for student, teacher in pairs]).mean()


@dataclass(frozen=True)
class Mixed:
    """A weighted sum of objectives; judged by the first that labels judge."""

    parts: Sequence[tuple[float, Objective]]

    def loss(self, made: Made, rows: Rows) -> torch.Tensor:
        """The sum."""
        return torch.stack([weight * part.loss(made, rows) for weight, part in self.parts]).sum()


def class_scores(outputs: Sequence[torch.Tensor], activation: str) -> torch.Tensor:
    """Logits [n, k] of the output that holds one score per class; a single score [n, 1] becomes two classes.

    Raises:
        DatasetMismatch: No output has one row of scores.
    """
    flat = [output for output in outputs if output.dim() in (1, 2)]
    many = [output for output in flat if output.dim() == 2 and output.shape[1] > 1]
    if not flat:
        shapes = ", ".join(str(list(output.shape)) for output in outputs)
        raise DatasetMismatch(
            f"Class labels are one per row, but no output of the model has one row of scores: {shapes}.",
            hint='Set "head": "replace" to give the model a new last layer.',
        )
    if many and activation == "softmax":
        return many[0].clamp_min(_TINY).log()
    scores = many[0] if many else flat[0].reshape(-1, 1)
    margin = torch.logit(scores, eps=1e-6) if activation == "sigmoid" else scores
    if many:
        return margin
    return torch.cat((torch.zeros_like(margin), margin), dim=1)


def pooled(output: torch.Tensor, mask: torch.Tensor | None, how: str) -> torch.Tensor:
    """Hidden states [n, tokens, width] as vectors [n, width], as ``datasets.pooling.pool`` does with arrays."""
    if how == "none" or output.dim() != 3:
        return output
    if how == "cls":
        return output[:, 0]
    weights = output.new_ones(output.shape[:2]) if mask is None else mask.to(output.dtype)
    weights = weights[:, :, None]
    return (output * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1.0)


def objective_of(task: Task, targets: torch.Tensor, pooling: str, activation: str) -> Labelled:
    """The plain objective of a task; ``targets`` are those of all rows."""
    if task is Task.CLASSIFICATION:
        return Classes(activation)
    if task is Task.SIMILARITY:
        return Similarities(pooling)
    return Values(float(targets.float().var(correction=0)))


def _distance(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Squared error over the variance of the teacher's values; padding does not count."""
    _check_same_shape(student, teacher)
    if mask is not None and student.dim() == 3 and student.shape[:2] == mask.shape:
        student, teacher = student[mask.bool()], teacher[mask.bool()]
    variance = teacher.var(correction=0) if teacher.numel() > 1 else teacher.new_ones(())
    return functional.mse_loss(student, teacher) / variance.clamp_min(_TINY)


def _check_same_shape(student: torch.Tensor, teacher: torch.Tensor) -> None:
    if student.shape != teacher.shape:
        raise DatasetMismatch(
            f"The student's output has the shape {list(student.shape)}, the teacher's {list(teacher.shape)}.",
            reason="student_output",
            hint="The student has to answer in the same form as the original.",
        )


def _check_classes(scores: torch.Tensor, targets: torch.Tensor) -> None:
    highest = int(targets.max()) + 1
    if highest > scores.shape[1]:
        raise DatasetMismatch(
            f"The labels name at least {highest} classes, the model scores {scores.shape[1]}.",
            reason="classes",
            hint='Give labels of the model\'s own classes, or a new last layer by finetune\'s "head": "replace".',
        )


def _given(targets: torch.Tensor | None) -> torch.Tensor:
    if targets is None:
        raise DatasetMismatch("The training rows have no labels.", reason="labels_needed")
    return targets
