"""Whether labels can be learnt from: classes without rows, hardly any rows, or far more rows than others."""

from collections.abc import Iterable

import numpy as np

from workers.compression.data import Dataset
from workers.compression.specs.errors import InvalidDataset
from workers.compression.specs.formats import Task

MIN_ROWS_PER_CLASS = 2
_IMBALANCE = 10
_NAMED = 10


def check_trainable(dataset: Dataset) -> tuple[str, ...]:
    """Sentences about what training on ``dataset`` will suffer from; none for rows without labels.

    Args:
        dataset: The rows that will be trained on: what is set aside for validation does not count.

    Raises:
        InvalidDataset: ``single_class``, ``too_few_rows_of_class``, ``target_invalid``.
    """
    if dataset.task is Task.FIDELITY or dataset.targets is None:
        return ()
    if dataset.task is not Task.CLASSIFICATION:
        _check_finite(dataset)
        return ()
    counts = dataset.class_counts()
    present = counts > 0
    if present.sum() == 1:
        raise InvalidDataset(
            f"Every training row is of class {_listed(_named(dataset, present))}: there is nothing to tell it from.",
            reason="single_class",
            hint="Give rows of at least two classes.",
        )
    # A class of which other parts of the data hold rows is one that the model is judged by.
    known = np.bincount(np.asarray(dataset.labels.targets, np.int64), minlength=len(counts)) > 0
    rare = known & (counts < MIN_ROWS_PER_CLASS)
    if rare.any():
        raise InvalidDataset(
            f"Fewer than {MIN_ROWS_PER_CLASS} training rows are left of {_classes(_named(dataset, rare))} once every "
            "part has its rows.",
            reason="too_few_rows_of_class",
            hint="Give more rows of each class, or leave the class out.",
        )
    return tuple(_warnings(dataset, counts, known))


def _warnings(dataset: Dataset, counts: np.ndarray[tuple[int], np.dtype[np.int64]], known: object) -> Iterable[str]:
    empty = ~np.asarray(known, bool)
    if empty.any():
        yield f"The training data has no row of {_classes(_named(dataset, empty))}: nothing is learnt about it."
    present = np.flatnonzero(counts)
    most, least = present[counts[present].argmax()], present[counts[present].argmin()]
    if counts[most] > _IMBALANCE * counts[least]:
        yield (
            f"Class {dataset.classes[most]} has {counts[most]} training rows and class {dataset.classes[least]} only "
            f'{counts[least]}: class_weights "balanced" makes up for it.'
        )


def _check_finite(dataset: Dataset) -> None:
    finite = np.isfinite(np.asarray(dataset.targets, np.float64))
    if not finite.all():
        raise InvalidDataset(
            f"The target is not a finite number in {int((~finite).sum())} of {finite.size} training values.",
            reason="target_invalid",
        )


def _named(dataset: Dataset, chosen: object) -> list[str]:
    return [dataset.classes[index] for index in np.flatnonzero(np.asarray(chosen, bool))]


def _classes(names: list[str]) -> str:
    return f"class {names[0]}" if len(names) == 1 else f"the classes {_listed(names)}"


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown
