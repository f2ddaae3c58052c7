"""What a model's outputs mean to the task: predictions per row, and metrics of them against the labels."""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from workers.compression import scores
from workers.compression.data import Batch, Dataset, pool
from workers.compression.families.model import Array
from workers.compression.specs.errors import DatasetMismatch
from workers.compression.specs.formats import Task
from workers.compression.specs.metrics import Interval

DEFAULT_METRICS = {
    Task.CLASSIFICATION: "accuracy",
    Task.REGRESSION: "rmse",
    Task.SIMILARITY: "spearman",
    Task.FIDELITY: "fidelity",
}

Floats = npt.NDArray[np.float64]

_OF_VALUES = scores.REGRESSION_METRICS | scores.SIMILARITY_METRICS


@dataclass
class Scored:
    """Task metrics of one model and their intervals."""

    values: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)


@dataclass
class Answers:
    """What one model answered to labelled rows.

    Args:
        dataset: Where the rows are from.
        required: Whether answers that cannot be scored are an error; if not, ``refusal`` says why they cannot.
    """

    dataset: Dataset
    required: bool
    refusal: DatasetMismatch | None = None
    _targets: list[Array] = field(default_factory=list)
    _predictions: list[Floats] = field(default_factory=list)

    def add(self, outputs: list[Array], batch: Batch) -> None:
        """Takes the outputs for one batch; without labels there is nothing to take.

        Raises:
            DatasetMismatch: No output has one row per label, and scores are required.
        """
        if batch.targets is None or self.dataset.task is Task.FIDELITY or self.refusal is not None:
            return
        try:
            self._predictions.append(predictions(outputs, batch, self.dataset))
        except DatasetMismatch as error:
            self._refuse(error)
            return
        self._targets.append(batch.targets)

    def score(self, random: np.random.Generator) -> Scored:
        """The task's metrics; none without labels or after a refusal.

        Raises:
            DatasetMismatch: The outputs do not fit the labels, and scores are required.
        """
        if self.refusal is not None or not self._targets:
            return Scored()
        try:
            return _score(self.dataset, np.concatenate(self._targets), np.concatenate(self._predictions), random)
        except DatasetMismatch as error:
            self._refuse(error)
            return Scored()

    @property
    def width(self) -> int | None:
        """Class scores or values per row; None without answers that can be scored."""
        return self._predictions[0].shape[1] if self._predictions and self.refusal is None else None

    def _refuse(self, error: DatasetMismatch) -> None:
        if self.required:
            raise error
        self.refusal = error


def comparable(outputs: list[Array], batch: Batch, dataset: Dataset) -> list[Array]:
    """The float outputs, hidden states pooled as the data says; integer outputs only where there are no others."""
    floats = [made for made in outputs if np.issubdtype(made.dtype, np.floating) and made.size]
    return [pool(made, batch.feeds, dataset.pooling) for made in floats or outputs if made.size]


def predictions(outputs: list[Array], batch: Batch, dataset: Dataset) -> Floats:
    """What the task's metric reads, one row per sample: class scores [n, k], values [n, m] or similarities [n, 1]."""
    if dataset.task is Task.SIMILARITY:
        return _similarities(outputs, batch, dataset)
    floats = [made for made in outputs if np.issubdtype(made.dtype, np.floating)]
    candidates = [made.reshape(len(batch), -1) for made in floats if len(made) == len(batch) and made.ndim <= 2]
    if dataset.task is Task.REGRESSION:
        return np.asarray(_first(candidates, outputs), np.float64)
    class_scores = [made for made in candidates if made.shape[1] > 1]
    if class_scores:
        return np.asarray(class_scores[0], np.float64)
    labels = [made for made in outputs if np.issubdtype(made.dtype, np.integer) and made.shape == (len(batch),)]
    if labels:
        return _one_hot(labels[0], dataset)
    return _two_classes(_first(candidates, outputs))


def metric_value(metric: str, truth: Array, predictions: Floats) -> float:
    """One of the tasks' metrics.

    Args:
        metric: As in ``specs.job.MetricName``, but for ``fidelity``.
        truth: One class or value per row, as many as there are predictions.
        predictions: As ``predictions`` makes them.

    Returns:
        NaN where the metric is not defined.
    """
    if (function := _OF_VALUES.get(metric)) is not None:
        return function(truth.reshape(-1), predictions.reshape(-1))
    classes = truth.astype(np.int64)
    if metric == "auc":
        return scores.binary_auc(classes, predictions[:, 1] - predictions[:, 0])
    labels = np.argmax(predictions, axis=1)
    return scores.macro_f1(classes, labels) if metric == "f1" else float(np.mean(labels == classes))


def _first(candidates: list[Array], outputs: list[Array]) -> Array:
    if not candidates:
        shapes = ", ".join(str(list(made.shape)) for made in outputs)
        raise DatasetMismatch(
            f"The labels are one per row, but no output of the model has one row of scores or values: {shapes}.",
            step="measure",
            hint="Upload data without a target to measure fidelity only.",
        )
    return candidates[0]


def _one_hot(labels: Array, dataset: Dataset) -> Floats:
    highest = max(int(labels.max(initial=0)), len(dataset.classes) - 1, 1)
    return np.eye(highest + 1, dtype=np.float64)[labels.astype(np.int64)]


def _two_classes(single: Array) -> Floats:
    """A single output is the score of class 1: a probability if it lies in 0..1, else a margin around 0."""
    score = np.asarray(single, np.float64)[:, 0]
    if score.min(initial=0.0) < 0.0 or score.max(initial=0.0) > 1.0:
        return np.stack((-score, score), axis=1)
    return np.stack((1.0 - score, score), axis=1)


def _similarities(outputs: list[Array], batch: Batch, dataset: Dataset) -> Floats:
    vectors = np.asarray(comparable(outputs, batch, dataset)[0], np.float64)
    vectors = vectors.reshape(len(vectors), -1)
    left, right = np.split(vectors, 2)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines: Floats = np.einsum("ij,ij->i", left, right) / np.maximum(norms, 1e-12)
    return cosines[:, None]


def _score(dataset: Dataset, truth: Array, predictions: Floats, random: np.random.Generator) -> Scored:
    if dataset.task is Task.CLASSIFICATION:
        return _score_classes(truth, predictions, random)
    table = scores.REGRESSION_METRICS if dataset.task is Task.REGRESSION else scores.SIMILARITY_METRICS
    truth = truth.reshape(len(truth), -1)
    if truth.shape != predictions.shape:
        raise DatasetMismatch(
            f"The target has {truth.shape[1]} values per row, the model gives {predictions.shape[1]}.", step="measure"
        )
    scored = Scored()
    flat_truth, flat = truth.reshape(-1), predictions.reshape(-1)
    for name, metric in table.items():
        _put(scored, name, metric(flat_truth, flat), scores.bootstrap_interval(metric, flat_truth, flat, random))
    return scored


def _score_classes(truth: Array, predictions: Floats, random: np.random.Generator) -> Scored:
    classes = truth.astype(np.int64)
    if classes.max(initial=0) >= predictions.shape[1]:
        raise DatasetMismatch(
            f"The data has class {classes.max()}, but the model tells only {predictions.shape[1]} classes apart.",
            step="measure",
        )
    labels = np.argmax(predictions, axis=1)
    correct = int(np.sum(labels == classes))
    scored = Scored()
    _put(scored, "accuracy", correct / len(classes), scores.wilson_interval(correct, len(classes)))
    _put(scored, "f1", metric_value("f1", classes, predictions), None)
    if predictions.shape[1] == 2:
        margin = predictions[:, 1] - predictions[:, 0]
        interval = scores.bootstrap_interval(scores.binary_auc, classes, margin, random)
        _put(scored, "auc", metric_value("auc", classes, predictions), interval)
    return scored


def _put(scored: Scored, name: str, value: float, interval: Interval | None) -> None:
    if not math.isfinite(value):
        return
    scored.values[name] = value
    if interval is not None:
        scored.intervals[name] = interval
