"""Ranges of activations, estimated from a stream in constant memory."""

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

AVERAGING = 0.1
PERCENTILE = 99.99
_BINS = 2048


class RangeEstimator(ABC):
    """Takes batches of one activation, gives the range to represent."""

    @abstractmethod
    def update(self, values: Floats) -> None:
        """Takes one batch of any shape, at least one finite element."""

    @abstractmethod
    def range(self) -> tuple[float, float]:
        """Low and high end, zero among them; (0, 0) before the first batch."""


class MinMax(RangeEstimator):
    """Everything ever seen."""

    def __init__(self) -> None:
        self._low = self._high = 0.0

    def update(self, values: Floats) -> None:
        """Widens the range."""
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))

    def range(self) -> tuple[float, float]:
        """The extremes."""
        return self._low, self._high


class MovingAverage(RangeEstimator):
    """Exponential moving average of each batch's extremes, which one odd batch cannot spoil."""

    def __init__(self) -> None:
        self._ends: npt.NDArray[np.float64] | None = None

    def update(self, values: Floats) -> None:
        """Moves the ends a tenth of the way."""
        ends = np.array([values.min(), values.max()], np.float64)
        self._ends = ends if self._ends is None else self._ends + AVERAGING * (ends - self._ends)

    def range(self) -> tuple[float, float]:
        """The averages."""
        if self._ends is None:
            return 0.0, 0.0
        return min(float(self._ends[0]), 0.0), max(float(self._ends[1]), 0.0)


class Percentile(RangeEstimator):
    """Cuts the outermost 0.01 % at each end, by a histogram whose reach doubles when values fall outside."""

    def __init__(self) -> None:
        self._reach = 0.0
        self._counts = np.zeros(_BINS, np.int64)

    def update(self, values: Floats) -> None:
        """Counts a batch."""
        largest = float(np.abs(values).max())
        if self._reach == 0.0:
            self._reach = largest
        while largest > self._reach > 0.0:
            self._widen()
        if self._reach > 0.0:
            self._counts += np.histogram(values, bins=_BINS, range=(-self._reach, self._reach))[0]

    def range(self) -> tuple[float, float]:
        """The percentiles, at the outer edges of their bins."""
        total = int(self._counts.sum())
        if not total:
            return 0.0, 0.0
        cut = total * (100.0 - PERCENTILE) / 100.0
        cumulative = np.cumsum(self._counts)
        first = int(np.searchsorted(cumulative, cut, side="right"))
        last = int(np.searchsorted(cumulative, total - cut, side="left"))
        edges = np.linspace(-self._reach, self._reach, _BINS + 1)
        return min(float(edges[first]), 0.0), max(float(edges[min(last, _BINS - 1) + 1]), 0.0)

    def _widen(self) -> None:
        """Doubles the reach: each pair of bins becomes one."""
        half = self._counts.reshape(-1, 2).sum(axis=1)
        self._counts = np.zeros(_BINS, np.int64)
        self._counts[_BINS // 4 : 3 * _BINS // 4] = half
        self._reach *= 2.0


ESTIMATORS: dict[str, type[RangeEstimator]] = {
    "minmax": MinMax,
    "moving_average": MovingAverage,
    "percentile": Percentile,
}
