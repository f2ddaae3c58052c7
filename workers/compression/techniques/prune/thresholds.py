"""Which weights are smallest: exact counts, ties broken by position, so that the same model gives the same zeros."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def zero_smallest(arrays: Sequence[npt.NDArray[Any]], sparsity: float, scope: str) -> int:
    """Zeroes the share ``sparsity`` of smallest absolute values in place; returns how many zeros there are then.

    Args:
        arrays: Writable, contiguous float arrays.
        sparsity: Between 0 and 1; each pool loses ``round(sparsity * size)`` weights, zeros of before counted in.
        scope: ``layer`` takes each array for itself, ``global`` all in one pool.
    """
    pools = [[values] for values in arrays] if scope == "layer" else [list(arrays)]
    for pool in pools:
        _zero_pool(pool, round(sparsity * sum(values.size for values in pool)))
    return sum(values.size - int(np.count_nonzero(values)) for values in arrays)


def zero_below(arrays: Sequence[npt.NDArray[Any]], threshold: float) -> int:
    """Zeroes what is smaller than ``threshold`` in absolute value, in place; returns how many zeros there are then."""
    for values in arrays:
        values[np.abs(values) < threshold] = 0.0
    return sum(values.size - int(np.count_nonzero(values)) for values in arrays)


def _zero_pool(pool: list[npt.NDArray[Any]], count: int) -> None:
    if not count:
        return
    threshold = np.partition(np.concatenate([np.abs(values).reshape(-1) for values in pool]), count - 1)[count - 1]
    below = sum(int(np.count_nonzero(np.abs(values) < threshold)) for values in pool)
    ties = count - below
    for values in pool:
        flat = values.reshape(-1)
        magnitude = np.abs(flat)
        equal = np.flatnonzero(magnitude == threshold)[:ties]
        ties -= equal.size
        flat[magnitude < threshold] = 0.0
        flat[equal] = 0.0
