"""Runs original and compressed over the same rows: fidelity of the outputs and, with labels, task metrics."""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from workers.compression import scores
from workers.compression.data import Batch, Dataset, pool
from workers.compression.families.model import Array, Model
from workers.compression.specs.errors import DatasetMismatch, NumericalFailure
from workers.compression.specs.formats import Task
from workers.compression.specs.metrics import Fidelity, Interval

BATCH_ROWS = 16
DEFAULT_METRICS = {
    Task.CLASSIFICATION: "accuracy",
    Task.REGRESSION: "rmse",
    Task.SIMILARITY: "spearman",
    Task.FIDELITY: "fidelity",
}

Floats = npt.NDArray[np.float64]


@dataclass
class Scored:
    """Task metrics of one model and their intervals."""

    values: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """What a pass over the evaluation rows showed."""

    rows: int
    fidelity: Fidelity
    original: Scored
    compressed: Scored


def judge(original: Model, compressed: Model, dataset: Dataset, random: np.random.Generator) -> Judgement:
    """One pass of both models over ``dataset``.

    Raises:
        NumericalFailure: The compressed model gives NaN or infinity where the original gave numbers.
        DatasetMismatch: The outputs hold nothing that the labels could be compared with.
    """
    collected: tuple[list[Floats], list[Floats]] = ([], [])
    targets: list[Array] = []
    sums: list[scores.FidelitySums] = []
    rows = 0
    for batch in dataset.batches(original.inputs, BATCH_ROWS, original.tokenizer_file()):
        outputs = (original.run(batch.feeds), compressed.run(batch.feeds))
        compared = [_comparable(side, batch, dataset) for side in outputs]
        sums = sums or [scores.FidelitySums() for _ in compared[0]]
        for total, left, right in zip(sums, compared[0], compared[1], strict=True):
            total.add(left, right, classes=_holds_classes(left, dataset))
        if batch.targets is not None and dataset.task is not Task.FIDELITY:
            targets.append(batch.targets)
            for side, made in zip(collected, outputs, strict=True):
                side.append(_predictions(made, batch, dataset))
        rows += len(batch)
    if not rows:
        raise DatasetMismatch("The evaluation data has no rows.", step="measure")
    _require_numbers(sums)
    seed = int(random.integers(1 << 31))
    scored = [_score(dataset, targets, side, np.random.default_rng(seed)) for side in collected]
    return Judgement(rows, scores.worst([total.result() for total in sums]), scored[0], scored[1])


def output_fidelity(original: list[list[Array]], compressed: Model, batches: list[Batch], dataset: Dataset) -> Fidelity:
    """Fidelity of ``compressed`` to outputs of the original that were kept, batch by batch."""
    sums: list[scores.FidelitySums] = []
    for kept, batch in zip(original, batches, strict=True):
        left = _comparable(kept, batch, dataset)
        right = _comparable(compressed.run(batch.feeds), batch, dataset)
        sums = sums or [scores.FidelitySums() for _ in left]
        for total, before, after in zip(sums, left, right, strict=True):
            total.add(before, after, classes=_holds_classes(before, dataset))
    _require_numbers(sums)
    return scores.worst([total.result() for total in sums])


def _require_numbers(sums: list[scores.FidelitySums]) -> None:
    if not all(total.finite for total in sums):
        raise NumericalFailure(
            "The compressed model's outputs contain NaN or infinity.",
            reason="output_not_finite",
            hint="Exclude the layers with the widest value range, or choose a wider type.",
        )


def _comparable(outputs: list[Array], batch: Batch, dataset: Dataset) -> list[Array]:
    """The float outputs, hidden states pooled as the data says; integer outputs only where there are no others."""
    floats = [made for made in outputs if np.issubdtype(made.dtype, np.floating) and made.size]
    return [pool(made, batch.feeds, dataset.pooling) for made in floats or outputs if made.size]


def _holds_classes(output: Array, dataset: Dataset) -> bool:
    """Whether the last axis can be class scores; a vector that stands for a text has no top class."""
    return output.ndim >= 2 and output.shape[-1] > 1 and dataset.task in (Task.CLASSIFICATION, Task.FIDELITY)


def _predictions(outputs: list[Array], batch: Batch, dataset: Dataset) -> Floats:
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
    vectors = np.asarray(_comparable(outputs, batch, dataset)[0], np.float64)
    vectors = vectors.reshape(len(vectors), -1)
    left, right = np.split(vectors, 2)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines: Floats = np.einsum("ij,ij->i", left, right) / np.maximum(norms, 1e-12)
    return cosines[:, None]


def _score(dataset: Dataset, targets: list[Array], made: list[Floats], random: np.random.Generator) -> Scored:
    if not targets:
        return Scored()
    truth, predictions = np.concatenate(targets), np.concatenate(made)
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
    _put(scored, "f1", scores.macro_f1(classes, labels), None)
    if predictions.shape[1] == 2:
        margin = predictions[:, 1] - predictions[:, 0]
        interval = scores.bootstrap_interval(scores.binary_auc, classes, margin, random)
        _put(scored, "auc", scores.binary_auc(classes, margin), interval)
    return scored


def _put(scored: Scored, name: str, value: float, interval: Interval | None) -> None:
    if not math.isfinite(value):
        return
    scored.values[name] = value
    if interval is not None:
        scored.intervals[name] = interval
