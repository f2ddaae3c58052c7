"""Ranges by information: how much a distribution changes when it is clipped and rounded to a few levels."""

import numpy as np
import numpy.typing as npt

BINS = 2048

_FACTORS = np.linspace(1.0, 0.2, 81)


def factor_of_least_divergence(histogram: npt.NDArray[np.int64], origin: float, bits: int) -> float:
    """How far to shrink a range so that what rounding leaves of the distribution diverges least from it.

    As in TensorRT's calibration: outliers are counted into the outermost bins that are kept, the levels share out their
    counts among the bins that were not empty, and the divergence is Kullback and Leibler's.

    Args:
        histogram: Counts over the whole range, shape (BINS,).
        origin: Where in the range, 0 to 1, both ends move to.
        bits: Levels as a power of two.

    Returns:
        The factor, 1 where there is nothing to gain.
    """
    if histogram.sum() == 0:
        return 1.0
    divergences = [_divergence(histogram, origin, float(factor), 1 << bits) for factor in _FACTORS]
    return float(_FACTORS[int(np.argmin(divergences))])


def _divergence(histogram: npt.NDArray[np.int64], origin: float, factor: float, levels: int) -> float:
    first = round(BINS * origin * (1 - factor))
    last = min(BINS, max(first + levels, round(BINS * (origin + (1 - origin) * factor))))
    inside = histogram[first:last].astype(np.float64)
    clipped = inside.copy()
    clipped[0] += histogram[:first].sum()
    clipped[-1] += histogram[last:].sum()
    level = np.arange(len(inside)) * levels // len(inside)
    filled = (clipped > 0).astype(np.float64)
    members = np.bincount(level, filled, levels)
    counts = np.bincount(level, inside, levels)
    rounded = filled * (counts / np.maximum(members, 1))[level]
    kept = rounded > 0
    # Mass where the rounded distribution has none would diverge without bound; it counts as if one bin held it.
    total, smallest = clipped.sum(), 1e-9
    share = clipped / total
    other = np.where(kept, rounded / max(rounded.sum(), 1.0), smallest)
    used = share > 0
    return float(np.sum(share[used] * np.log(share[used] / other[used])))
