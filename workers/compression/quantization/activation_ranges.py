"""Ranges of activations, estimated from a stream in constant memory.

``minmax``
    Everything ever seen.
``moving_average``
    Exponential moving average of each batch's extremes, which one odd batch cannot spoil.
``percentile``
    Without the outermost 0.01 % at each end.
``entropy``
    Shrunk until what rounding leaves of the distribution diverges least from it (Kullback-Leibler, as TensorRT
    calibrates).
``mse``
    Both ends where clipping and rounding together cost the least squared error.
"""

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from workers.compression.quantization.divergence import BINS, factor_of_least_divergence

Floats = npt.NDArray[np.float32]
Range = tuple[float, float]

AVERAGING = 0.1
PERCENTILE = 99.99
_BINS = 8192
_SHRINKS = np.linspace(0.02, 1.0, 99)


class RangeEstimator(ABC):
    """Takes batches of one activation, gives the range to represent.

    Args:
        bits: Of the integers that are to represent it.
    """

    def __init__(self, bits: int = 8) -> None:
        self.bits = bits

    @abstractmethod
    def update(self, values: Floats) -> None:
        """Takes one batch of any shape, at least one element, all finite."""

    @abstractmethod
    def range(self) -> Range:
        """Low and high end, zero among them; (0, 0) before the first batch."""


class MinMax(RangeEstimator):
    """The extremes."""

    def __init__(self, bits: int = 8) -> None:
        super().__init__(bits)
        self._low = self._high = 0.0

    def update(self, values: Floats) -> None:
        """Widens the range."""
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))

    def range(self) -> Range:
        """All that was seen."""
        return self._low, self._high


class MovingAverage(RangeEstimator):
    """The extremes of batches, averaged."""

    def __init__(self, bits: int = 8) -> None:
        super().__init__(bits)
        self._ends: npt.NDArray[np.float64] | None = None

    def update(self, values: Floats) -> None:
        """Moves the ends a tenth of the way."""
        ends = np.array([values.min(), values.max()], np.float64)
        self._ends = ends if self._ends is None else self._ends + AVERAGING * (ends - self._ends)

    def range(self) -> Range:
        """The averages."""
        if self._ends is None:
            return 0.0, 0.0
        return min(float(self._ends[0]), 0.0), max(float(self._ends[1]), 0.0)


class HistogramRange(RangeEstimator):
    """Counts values in bins of equal width around zero, whose reach doubles when values fall outside."""

    def __init__(self, bits: int = 8) -> None:
        super().__init__(bits)
        self._extremes = MinMax()
        self._reach = 0.0
        self._counts = np.zeros(_BINS, np.int64)

    def update(self, values: Floats) -> None:
        """Counts a batch."""
        self._extremes.update(values)
        largest = float(np.abs(values).max())
        if self._reach == 0.0:
            self._reach = largest
        while largest > self._reach > 0.0:
            self._widen()
        if self._reach > 0.0:
            self._counts += np.histogram(values, bins=_BINS, range=(-self._reach, self._reach))[0]

    def range(self) -> Range:
        """What is left of the extremes."""
        low, high = self._extremes.range()
        if low == high:
            return low, high
        first, last = self.inside(low, high)
        return min(max(first, low), 0.0), max(min(last, high), 0.0)

    @abstractmethod
    def inside(self, low: float, high: float) -> Range:
        """The range to keep of that from ``low`` to ``high``, which holds all values."""

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Where bins begin and end."""
        return np.linspace(-self._reach, self._reach, _BINS + 1)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """How many values each bin holds."""
        return self._counts

    def _widen(self) -> None:
        """Doubles the reach: each pair of bins becomes one."""
        half = self._counts.reshape(-1, 2).sum(axis=1)
        self._counts = np.zeros(_BINS, np.int64)
        self._counts[_BINS // 4 : 3 * _BINS // 4] = half
        self._reach *= 2.0


class Percentile(HistogramRange):
    """Cuts a fixed share at each end."""

    def inside(self, low: float, high: float) -> Range:
        """The percentiles, at the outer edges of their bins."""
        total = int(self.counts.sum())
        cut = total * (100.0 - PERCENTILE) / 100.0
        cumulative = np.cumsum(self.counts)
        first = int(np.searchsorted(cumulative, cut, side="right"))
        last = int(np.searchsorted(cumulative, total - cut, side="left"))
        return float(self.edges[first]), float(self.edges[min(last, _BINS - 1) + 1])


class Entropy(HistogramRange):
    """Shrinks both ends by one factor, that of the least divergence."""

    def inside(self, low: float, high: float) -> Range:
        """The range of the factor found."""
        cumulative = np.concatenate([[0], np.cumsum(self.counts)])
        resampled = np.interp(np.linspace(low, high, BINS + 1), self.edges, cumulative)
        histogram = np.diff(np.rint(resampled).astype(np.int64))
        factor = factor_of_least_divergence(histogram, -low / (high - low), self.bits)
        return low * factor, high * factor


class LeastSquares(HistogramRange):
    """Tries every pair of ends on a grid: a step's square over 12 for what is kept, and what clipping costs."""

    def inside(self, low: float, high: float) -> Range:
        """The best pair."""
        centres = (self.edges[1:] + self.edges[:-1]) / 2
        lows, highs = low * _SHRINKS, high * _SHRINKS
        below = np.array([self.counts @ np.square(np.maximum(end - centres, 0.0)) for end in lows])
        above = np.array([self.counts @ np.square(np.maximum(centres - end, 0.0)) for end in highs])
        steps = (highs[None, :] - lows[:, None]) / ((1 << self.bits) - 1)
        error = below[:, None] + above[None, :] + self.counts.sum() * np.square(steps) / 12
        first, last = np.unravel_index(int(np.argmin(error)), error.shape)
        return float(lows[first]), float(highs[last])


ESTIMATORS: dict[str, type[RangeEstimator]] = {
    "minmax": MinMax,
    "moving_average": MovingAverage,
    "percentile": Percentile,
    "entropy": Entropy,
    "mse": LeastSquares,
}
