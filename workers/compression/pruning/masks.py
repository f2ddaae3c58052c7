"""From scores to which weights stay: exact counts; of equal scores those that come first go first.

The same scores give the same masks on every machine.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from workers.compression.specs.pruning_pattern import UNSTRUCTURED, Blocks, Groups, Pattern

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
"""True where a weight stays; shape (outputs, inputs)."""


def mask(scores: Floats, sparsity: float, pattern: Pattern = UNSTRUCTURED, *, by_row: bool = False) -> Mask:
    """What stays of one matrix.

    Args:
        scores: Higher is more important; finite, shape (outputs, inputs). A block counts by the mean of its scores.
        sparsity: Share that goes: ``round(sparsity * count)`` of the weights, or of the blocks. ``Groups`` have their
            own, whatever is given here.
        by_row: Outputs lose equally many, to within one, instead of weights being compared in the whole matrix.
    """
    if isinstance(pattern, Groups):
        return _mask_groups(scores, pattern)
    if not by_row:
        return pooled_masks([scores], sparsity, pattern)[0]
    means = _block_means(scores, pattern)
    stays = np.ones(means.shape, np.bool_)
    quotas = _spread(round(sparsity * means.size), len(means))
    order = np.argsort(means, axis=1, kind="stable")
    np.put_along_axis(stays, order, np.arange(means.shape[1]) >= quotas[:, None], axis=1)
    return _spread_blocks(stays, pattern, scores.shape)


def pooled_masks(scores: Sequence[Floats], sparsity: float, pattern: Blocks = UNSTRUCTURED) -> list[Mask]:
    """What stays of several matrices whose weights are compared with each other: ``round(sparsity * count)`` go."""
    means = [_block_means(matrix, pattern) for matrix in scores]
    count = round(sparsity * sum(matrix.size for matrix in means))
    if not count:
        return [np.ones(matrix.shape, np.bool_) for matrix in scores]
    threshold = np.partition(np.concatenate([matrix.reshape(-1) for matrix in means]), count - 1)[count - 1]
    ties = count - sum(int(np.count_nonzero(matrix < threshold)) for matrix in means)
    found = []
    for matrix, whole in zip(means, scores, strict=True):
        stays = matrix >= threshold
        equal = np.flatnonzero(matrix == threshold)[:ties]
        ties -= equal.size
        stays.reshape(-1)[equal] = False
        found.append(_spread_blocks(stays, pattern, whole.shape))
    return found


def _mask_groups(scores: Floats, pattern: Groups) -> Mask:
    rows, columns = scores.shape
    padded = np.pad(scores, ((0, 0), (0, -columns % pattern.of)), constant_values=-np.inf)
    groups = padded.reshape(rows, -1, pattern.of)
    stays = np.zeros(groups.shape, np.bool_)
    # Padding is less than every score, so it never takes the place of a weight that there is.
    kept = np.argsort(groups, axis=2, kind="stable")[:, :, pattern.of - pattern.keep :]
    np.put_along_axis(stays, kept, True, axis=2)
    return np.ascontiguousarray(stays.reshape(rows, -1)[:, :columns])


def _block_means(scores: Floats, pattern: Blocks) -> Floats:
    if pattern == UNSTRUCTURED:
        return np.ascontiguousarray(scores)
    rows, columns = (np.arange(0, size, step) for size, step in zip(scores.shape, _steps(pattern), strict=True))
    sums = np.add.reduceat(np.add.reduceat(scores.astype(np.float64), rows, axis=0), columns, axis=1)
    heights, widths = np.diff(rows, append=scores.shape[0]), np.diff(columns, append=scores.shape[1])
    return np.asarray(sums / np.outer(heights, widths), np.float32)


def _spread_blocks(stays: Mask, pattern: Blocks, shape: tuple[int, ...]) -> Mask:
    if pattern == UNSTRUCTURED:
        return stays
    height, width = _steps(pattern)
    return np.ascontiguousarray(stays.repeat(height, axis=0).repeat(width, axis=1)[: shape[0], : shape[1]])


def _steps(pattern: Blocks) -> tuple[int, int]:
    return pattern.height, pattern.width


def _spread(total: int, parts: int) -> npt.NDArray[np.int64]:
    """``total`` in whole numbers that differ by one at most."""
    ends = (np.arange(parts + 1, dtype=np.int64) * total) // parts
    return np.diff(ends)
