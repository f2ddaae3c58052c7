"""Positions of the few values that are not zero, as steps from each to the next (Deep Compression, arXiv:1510.00149).

A step of ``width`` bits reaches as far as ``(1 << width) - 1``. Where the next value lies farther away, entries in
between stand for zeros; so do entries after the last value, such that every stretch that long has an entry.
"""

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]


def entries(positions: Positions, size: int, width: int, multiple: int = 1) -> Positions:
    """Rising positions of all entries: those given and those that stand for zeros; at least one.

    Args:
        positions: Rising, below ``size``.
        size: Number of values, zeros included; not 0.
        width: Bits of a step, 1 to 8.
        multiple: How many there are is a multiple of it, where enough zeros are there to fill up with.
    """
    reach = (1 << width) - 1
    ends = np.concatenate([positions if positions.size else np.zeros(1, np.int64), [size]])
    starts = np.concatenate([[0], ends[:-1]])
    between = np.maximum((ends - starts - 1) // reach, 0)
    first = np.cumsum(between) - between
    number = np.arange(int(between.sum())) - np.repeat(first, between) + 1
    found = np.sort(np.concatenate([ends[:-1], np.repeat(starts, between) + reach * number]))
    lacking = -len(found) % multiple
    free = np.ones(min(size, len(found) + lacking), bool)
    free[found[found < len(free)]] = False
    more = np.flatnonzero(free)[:lacking]
    return np.sort(np.concatenate([found, more])) if len(more) == lacking else found


def entry_count(positions: Positions, size: int, width: int) -> int:
    """How many ``entries`` there are, if they need not be a multiple of anything."""
    reach = (1 << width) - 1
    ends = np.concatenate([positions if positions.size else np.zeros(1, np.int64), [size]])
    distances = np.diff(ends, prepend=0)
    return len(ends) - 1 + int(np.maximum((distances - 1) // reach, 0).sum())


def steps_to(found: Positions) -> npt.NDArray[np.uint8]:
    """Steps whose running sum is ``entries``."""
    return np.diff(found, prepend=0).astype(np.uint8)
