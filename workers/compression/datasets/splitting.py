"""Which rows a role or a process sees, and in what order: parts of one seeded, stratified order."""

import numpy as np

from workers.compression.datasets.labels import Labels
from workers.compression.datasets.source import Rows
from workers.compression.specs.errors import InvalidDataset
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


def set_aside(order: Rows, share: float) -> tuple[Rows, Rows]:
    """``order`` without its last ``share``, and that last part; at least one row each unless ``share`` is 0.

    Raises:
        InvalidDataset: ``too_few_rows`` for two parts.
    """
    if not share:
        return order, order[:0]
    if len(order) < 2:
        raise InvalidDataset(
            f"{len(order)} row of the dataset cannot be divided into two parts.",
            reason="too_few_rows",
            hint="Give more rows, or set validation to 0.",
        )
    count = min(max(round(len(order) * share), 1), len(order) - 1)
    return order[:-count], order[-count:]


def shuffled_order(order: Rows, seed: tuple[int, int], groups: Rows | None, mixed: int) -> Rows:
    """The same rows in an order that depends on ``seed`` alone, whatever order they come in.

    Rows of a file that is decoded in groups are shuffled among ``mixed`` groups at a time, and the groups are shuffled
    before that: at random over the whole file every row would have its group decoded anew.
    """
    random = np.random.default_rng(seed)
    rows = np.sort(order)
    if groups is None or len(groups) <= mixed:
        return random.permutation(rows)
    cuts = np.searchsorted(rows, groups[1:])
    stretches = [rows[low:high] for low, high in zip((0, *cuts), (*cuts, len(rows)), strict=True)]
    sequence = random.permutation(len(stretches))
    windows = (sequence[first : first + mixed] for first in range(0, len(sequence), mixed))
    return np.concatenate([random.permutation(np.concatenate([stretches[at] for at in window])) for window in windows])


def shard_of(order: Rows, rank: int, count: int) -> Rows:
    """Every ``count``-th row from ``rank`` on; the first rows are repeated so that all shards are equally long."""
    length = -(-len(order) // count)
    return np.resize(order, length * count)[rank::count]
