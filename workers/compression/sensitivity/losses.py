"""The task's loss on labelled rows, as far as it follows from outputs alone."""

import numpy as np

from workers.compression.data import Batch, Dataset
from workers.compression.families.model import Array
from workers.compression.specs.formats import Task
from workers.compression.task_scores import Floats, predictions

_SMALLEST = 1e-12


def loss_of(outputs: list[Array], batch: Batch, dataset: Dataset) -> Floats | None:
    """Loss of each row: cross-entropy of classes, squared error of values; None for tasks that have neither.

    Raises:
        DatasetMismatch: No output has one row per label.
    """
    if batch.targets is None or dataset.task not in (Task.CLASSIFICATION, Task.REGRESSION):
        return None
    made = predictions(outputs, batch, dataset)
    if dataset.task is Task.REGRESSION:
        wanted = np.asarray(batch.targets, np.float64).reshape(len(made), -1)
        return np.mean(np.square(made - wanted), axis=1) if wanted.shape == made.shape else None
    classes = batch.targets.astype(np.int64)
    if classes.max(initial=0) >= made.shape[1]:
        return None
    chosen = np.take_along_axis(_log_probabilities(made), classes[:, None], axis=1)
    return np.asarray(-chosen[:, 0], np.float64)


def _log_probabilities(made: Floats) -> Floats:
    """Rows that are probabilities already are taken as such, anything else as logits."""
    if made.min(initial=0.0) >= 0.0 and np.allclose(made.sum(axis=1), 1.0, atol=1e-3):
        return np.asarray(np.log(np.maximum(made, _SMALLEST)))
    shifted = made - made.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
