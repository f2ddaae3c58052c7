"""How far the integers of each block of a weight reach: over all of its values, or less where that errs less.

``minmax``
    From the smallest to the largest value.
``percentile``
    Between the 0.1 % and 99.9 % quantiles of each block (of absolute values, 99.9 %, where the scheme is symmetric),
    interpolated, so that a group of few values loses only a little of its outermost one.
``entropy``
    Shrunk by the factor whose rounded distribution diverges least (Kullback-Leibler) from the original, both as
    histograms, as TensorRT calibrates. A histogram of few values means nothing: blocks of fewer than 16,384 values,
    each divided by its own range, share one for the whole matrix, and one factor.
``mse``
    Where the squared error is least: a search over both ends, then the best step for the integers found. Columns can be
    given weights, which a layer's inputs provide.

Steps are rounded to the precision of float16, except those of ``minmax``, so that formats can store them in two bytes.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from workers.compression.quantization.block_rows import BlockRows, pieces
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.divergence import BINS, factor_of_least_divergence
from workers.compression.quantization.range_search import RangeSearch, half, middle_of
from workers.compression.quantization.uniform import Grid, Parameters, Scheme, parameters_for

Floats = npt.NDArray[np.float32]
Range = Literal["minmax", "percentile", "entropy", "mse"]

_QUANTILE = 0.999
_OWN_HISTOGRAM = 16_384


def fitted(
    matrix: Floats, grid: Grid, blocks: Blocks, scheme: Scheme, method: Range, weights: Floats | None = None
) -> Parameters:
    """Parameters for each block of ``matrix``.

    Args:
        matrix: Finite, shape (outputs, inputs).
        method: As above.
        weights: What the squared errors in each column count, for ``mse``; the same for all where not given.
    """
    if method == "minmax":
        low, high = (blocks.reduced(matrix, reduce) for reduce in (np.minimum, np.maximum))
        return parameters_for(low, high, grid, scheme)
    shared = _shared_factor(matrix, grid, blocks, scheme) if method == "entropy" else None
    found = []
    for rows, own in pieces(blocks):
        values = BlockRows.of(matrix[rows], own, weights)
        found.append(reshaped(_fitted(values, grid, scheme, method, shared), own.counts))
    return joined(found)


def joined(parts: list[Parameters], axis: int = 0) -> Parameters:
    """Parameters of neighbouring parts of a matrix as those of the whole."""
    zeros = [part.zero for part in parts if part.zero is not None]
    offsets = [part.offset for part in parts if part.offset is not None]
    return Parameters(
        np.concatenate([part.scale for part in parts], axis),
        np.concatenate(zeros, axis) if zeros else None,
        np.concatenate(offsets, axis) if offsets else None,
    )


def reshaped(parameters: Parameters, counts: tuple[int, ...]) -> Parameters:
    """Parameters (blocks, 1) in the shape of their blocks' counts."""
    zero, offset = parameters.zero, parameters.offset
    return Parameters(
        parameters.scale.reshape(counts),
        None if zero is None else zero.reshape(counts),
        None if offset is None else offset.reshape(counts),
    )


def _fitted(blocks: BlockRows, grid: Grid, scheme: Scheme, method: Range, shared: float | None) -> Parameters:
    low, high = (reduce(blocks.values, axis=1, keepdims=True) for reduce in (np.min, np.max))
    if method == "mse":
        return RangeSearch(blocks, grid, scheme).search(low, high).parameters(grid, scheme)
    if method == "percentile":
        low, high = _quantiles(blocks.values, scheme)
    else:
        low, high = _shrunk(blocks.values, low, high, grid, scheme, shared)
    found = parameters_for(low, high, grid, scheme)
    return Parameters(half(found.scale), found.zero, found.offset)


def _quantiles(values: Floats, scheme: Scheme) -> tuple[Floats, Floats]:
    if scheme == "symmetric":
        top = np.quantile(np.abs(values), _QUANTILE, axis=1, keepdims=True).astype(np.float32)
        return -top, top
    low, high = np.quantile(values, (1 - _QUANTILE, _QUANTILE), axis=1, keepdims=True).astype(np.float32)
    return low, high


def _shrunk(
    values: Floats, low: Floats, high: Floats, grid: Grid, scheme: Scheme, shared: float | None
) -> tuple[Floats, Floats]:
    low, high = _covered(low, high, scheme)
    middle = middle_of(low, high, scheme)
    if shared is not None:
        factors = np.full_like(low, shared)
    else:
        ends = zip(values, low[:, 0], high[:, 0], strict=True)
        histograms = (_histogram(row[None], first, last) for row, first, last in ends)
        origins = _origin(low, high, middle)
        factors = np.array(
            [
                [factor_of_least_divergence(histogram, float(origin), grid.bits)]
                for histogram, origin in zip(histograms, origins[:, 0], strict=True)
            ],
            np.float32,
        )
    return middle + (low - middle) * factors, middle + (high - middle) * factors


def _shared_factor(matrix: Floats, grid: Grid, blocks: Blocks, scheme: Scheme) -> float | None:
    """The one factor of small blocks; None where blocks are large enough for one each."""
    if np.prod(blocks.lengths) >= _OWN_HISTOGRAM:
        return None
    histogram = np.zeros(BINS, np.int64)
    origins = []
    for rows, own in pieces(blocks):
        values = BlockRows.of(matrix[rows], own).values
        low, high = _covered(values.min(axis=1, keepdims=True), values.max(axis=1, keepdims=True), scheme)
        histogram += _histogram(values, low, high)
        middle = middle_of(low, high, scheme)
        origins.append(_origin(low, high, middle))
    return factor_of_least_divergence(histogram, float(np.mean(np.concatenate(origins))), grid.bits)


def _covered(low: Floats, high: Floats, scheme: Scheme) -> tuple[Floats, Floats]:
    """The range that the scheme's integers span."""
    if scheme == "symmetric":
        top = np.maximum(np.abs(low), np.abs(high))
        return -top, top
    return (low, high) if scheme == "minmax" else (np.minimum(low, 0), np.maximum(high, 0))


def _histogram(values: Floats, low: Floats, high: Floats) -> npt.NDArray[np.int64]:
    """How many values lie in each part of their block's range."""
    span = np.where(high > low, high - low, np.float32(1))
    bins = ((values - low) / span * BINS).astype(np.int32)
    return np.bincount(np.clip(bins, 0, BINS - 1).reshape(-1), minlength=BINS)


def _origin(low: Floats, high: Floats, middle: Floats) -> Floats:
    """Where in its range, 0 to 1, a block shrinks to."""
    return np.where(high > low, (middle - low) / np.where(high > low, high - low, 1), 0.5).astype(np.float32)
