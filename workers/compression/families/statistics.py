"""Figures about one stored tensor, in two passes over blocks so that a tensor is never copied whole."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from workers.compression.families.model import Array
from workers.compression.specs.metrics import TensorStatistics

BINS = 32
_BLOCK = 1 << 20
_LARGEST = 1e30


def describe_tensor(name: str, array: Array) -> TensorStatistics:
    """Shape, dtype, sparsity, moments and histogram of ``array``; moments are over its finite values.

    Args:
        name: Name of the tensor in its model.
        array: Any shape; numbers or booleans (ml_dtypes' bfloat16 and float8 included).
    """
    low, high, count, nonzero, total = np.inf, -np.inf, 0, 0, 0.0
    for block in _blocks(array):
        nonzero += int(np.count_nonzero(block))
        finite = _finite(block)
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            count, total = count + finite.size, total + float(finite.sum())
    sparsity = 1.0 - nonzero / array.size if array.size else 0.0
    shape = {"name": name[:512], "shape": array.shape, "dtype": array.dtype.name, "bytes": array.nbytes}
    if not count:
        return TensorStatistics(**shape, sparsity=sparsity)
    mean = total / count
    spread, histogram = _spread_and_histogram(array, mean, (low, high))
    std = float(np.sqrt(spread / count))
    return TensorStatistics(
        **shape, sparsity=sparsity, min=low, max=high, mean=mean, std=std, histogram=tuple(histogram.tolist())
    )


def _spread_and_histogram(
    array: Array, mean: float, limits: tuple[float, float]
) -> tuple[float, npt.NDArray[np.int64]]:
    spread = 0.0
    histogram = np.zeros(BINS, dtype=np.int64)
    low, high = limits
    reach = max(abs(low), abs(high), 1e-300)
    edges = limits if (high - low) > 1e-9 * reach else (low - reach, high + reach)
    for block in _blocks(array):
        finite = _finite(block)
        spread += float(np.square(finite - mean).sum())
        histogram += np.histogram(finite, bins=BINS, range=edges)[0]
    return spread, histogram


def _blocks(array: Array) -> Iterator[npt.NDArray[np.float64]]:
    flat = array.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        yield flat[start : start + _BLOCK].astype(np.float64)


def _finite(block: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    finite = block[np.isfinite(block)]
    return np.clip(finite, -_LARGEST, _LARGEST)
