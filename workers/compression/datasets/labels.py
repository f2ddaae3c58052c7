"""What the labels of a dataset ask for, and how they become class indices or values."""

from dataclasses import dataclass

import numpy as np

from workers.compression.datasets.source import Array, Source
from workers.compression.specs.errors import InvalidDataset
from workers.compression.specs.formats import Task

MAX_CLASSES = 10_000
_FEW_CLASSES = 20


@dataclass(frozen=True)
class Labels:
    """The task, the class names in the order of the model's outputs, and one target per row.

    Integers that are not negative are the model's output indices themselves, even where some class has no row;
    other labels (text, negative integers) are numbered in sorted order.
    """

    task: Task
    classes: tuple[str, ...] = ()
    targets: Array | None = None


def label(source: Source, task: Task | None) -> Labels:
    """Detects the task, unless the user named it, and turns raw labels into targets.

    Raises:
        InvalidDataset: ``target_missing`` (a task was named but there are no labels), ``target_missing_rows`` (some
            rows have none), ``target_invalid``.
    """
    raw = source.target
    if task is Task.FIDELITY or (raw is None and task is None):
        return Labels(Task.FIDELITY)
    if raw is None:
        raise InvalidDataset(f"The task is {task}, but the dataset has no target.", reason="target_missing")
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    _check_no_gaps(raw)
    found = task or _detect(source, raw)
    if found is Task.CLASSIFICATION:
        return _classes(raw)
    if raw.dtype.kind not in "biuf" or not np.isfinite(raw.astype(np.float64)).all():
        raise InvalidDataset("The target holds something other than finite numbers.", reason="target_invalid")
    return Labels(found, (), raw.astype(np.float64))


def _check_no_gaps(raw: Array) -> None:
    """Empty cells, nulls and NaN are no labels, and neither is a class of their own."""
    if raw.dtype.kind == "f":
        missing = np.isnan(raw).reshape(len(raw), -1).any(axis=1)
    elif raw.dtype.kind == "O":
        missing = np.array([_is_blank(value) for value in raw.reshape(len(raw), -1)[:, 0]], dtype=bool)
    else:
        return
    if missing.any():
        raise InvalidDataset(
            f"The target is missing in {int(missing.sum())} of {len(raw)} rows (first: row {missing.argmax() + 1}).",
            reason="target_missing_rows",
            hint="Remove them, or upload them without a target as unlabelled data.",
        )


def _is_blank(value: object) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())  # noqa: PLR0124 - NaN


def is_pairs(source: Source) -> bool:
    """Whether each row is two texts."""
    return {"text_a", "text_b"} <= {feature.name for feature in source.features}


def _detect(source: Source, raw: Array) -> Task:
    if raw.ndim == 1 and raw.dtype.kind in "Ob":
        return Task.CLASSIFICATION
    if raw.ndim == 1 and _looks_like_classes(raw, integer_labels=source.integer_labels):
        return Task.SIMILARITY if is_pairs(source) and not source.integer_labels else Task.CLASSIFICATION
    return Task.SIMILARITY if is_pairs(source) else Task.REGRESSION


def _looks_like_classes(raw: Array, *, integer_labels: bool) -> bool:
    """Whole numbers from 0 on: few of them, or each of them often, or integers by their very type."""
    values = raw.astype(np.float64)
    if not np.isfinite(values).all() or (values != np.round(values)).any():
        return False
    distinct = len(np.unique(values))
    if raw.dtype.kind == "f":
        return distinct <= _FEW_CLASSES and values.min() >= 0 and values.max() < _FEW_CLASSES
    if integer_labels and values.min() >= 0 and values.max() < MAX_CLASSES:
        return True
    return distinct <= _FEW_CLASSES or (distinct * 5 <= len(values) and distinct <= MAX_CLASSES)


def _classes(raw: Array) -> Labels:
    if raw.ndim != 1:
        raise InvalidDataset("Class labels have to be one value per row.", reason="target_invalid")
    if raw.dtype.kind == "O":
        names, targets = np.unique(raw.astype(str), return_inverse=True)
        return _bounded([str(name) for name in names], targets)
    values = raw.astype(np.float64)
    if not np.isfinite(values).all() or (values != np.round(values)).any():
        raise InvalidDataset("Class labels have to be whole numbers or text.", reason="target_invalid")
    whole = values.astype(np.int64)
    if whole.min() >= 0:
        return _bounded([str(index) for index in range(min(int(whole.max()), MAX_CLASSES) + 1)], whole)
    numbers, targets = np.unique(whole, return_inverse=True)
    return _bounded([str(number) for number in numbers], targets)


def _bounded(names: list[str], targets: Array) -> Labels:
    if len(names) > MAX_CLASSES:
        raise InvalidDataset(f"The target has more than {MAX_CLASSES} classes.", reason="target_invalid")
    return Labels(Task.CLASSIFICATION, tuple(name[:200] for name in names), targets.astype(np.int64))
