"""Which rows a role sees: parts of one seeded, stratified order."""

import numpy as np

from workers.compression.datasets.labels import Labels
from workers.compression.datasets.source import Rows
from workers.compression.specs.formats import Task


def stratified_order(rows: int, labels: Labels, seed: int) -> Rows:
    """A permutation of the rows in which every stretch holds the classes in about their shares of the whole.

    Rows of a class are shuffled and spread evenly over the interval 0..1, with a random offset each; sorting by that
    position interleaves the classes.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(rows)
    if labels.task is not Task.CLASSIFICATION or labels.targets is None:
        return order.astype(np.int64)
    shuffled = labels.targets[order].astype(np.int64)
    by_class = np.argsort(shuffled, kind="stable")
    counts = np.bincount(shuffled)
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    ranks = np.empty(rows)
    ranks[by_class] = np.arange(rows) - np.repeat(starts, counts)
    position = (ranks + random.random(rows)) / counts[shuffled]
    return order[np.argsort(position, kind="stable")].astype(np.int64)


def part_of(order: Rows, part: tuple[float, float]) -> Rows:
    """The half-open interval ``part`` of ``order``; adjoining parts share no row and leave none out."""
    low, high = (int(share * len(order)) for share in part)
    return order[low:high]
