"""Batches of rows of similar length, so that little of what a network computes is padding."""

from collections.abc import Callable, Iterator

import numpy as np

from workers.compression.datasets.source import Rows

WINDOW_BATCHES = 32


def in_order(order: Rows, size: int, start: int = 0) -> Iterator[Rows]:
    """``size`` rows at a time, from batch ``start`` on."""
    for first in range(start * size, len(order), size):
        yield order[first : first + size]


def bucketed(
    order: Rows, size: int, lengths: Callable[[Rows], Rows], seed: tuple[int, ...], start: int = 0
) -> Iterator[Rows]:
    """As many batches as ``in_order`` gives, sorted by length within windows of 32 batches and then shuffled.

    The last window's incomplete batch may come anywhere among the batches of that window.

    Args:
        order: The rows.
        size: Rows per batch.
        lengths: The length of each of the rows asked for.
        seed: Same seed, same batches.
        start: Batches to leave out; windows that lie before it are not looked at.
    """
    window = WINDOW_BATCHES * size
    for number, first in enumerate(range(0, len(order), window)):
        rows = order[first : first + window]
        batches = -(-len(rows) // size)
        skipped = min(start, batches)
        start -= skipped
        if skipped == batches:
            continue
        by_length = rows[np.argsort(lengths(rows), kind="stable")]
        for index in np.random.default_rng((*seed, number)).permutation(batches)[skipped:]:
            yield by_length[index * size : (index + 1) * size]
