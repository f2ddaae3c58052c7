"""Latency of two models side by side: warmed up, interleaved, with an interval of their ratio."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.compression.families.model import Feeds, Model
from workers.compression.specs.metrics import Interval, Percentiles

WARM_UP_CALLS = 5
RESAMPLES = 2000
MAX_SECONDS_PER_BATCH_SIZE = 20.0

Times = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairedTimes:
    """Milliseconds per call of both models at one batch size, in the order they were taken."""

    original: Times
    compressed: Times

    def ratio(self) -> float:
        """Median of the original over median of the compressed: greater means that compression made it faster."""
        return float(np.median(self.original) / np.median(self.compressed))

    def ratio_interval(self, random: np.random.Generator) -> Interval:
        """95 % bootstrap interval of ``ratio``, pairs kept together so that drift of the machine cancels."""
        count = len(self.original)
        rows = random.integers(0, count, (RESAMPLES, count))
        ratios = np.median(self.original[rows], axis=1) / np.median(self.compressed[rows], axis=1)
        low, high = np.percentile(ratios, (2.5, 97.5))
        return Interval(n=count, low=float(low), high=float(high))


def time_side_by_side(
    original: Model, compressed: Model, feeds: tuple[Sequence[Feeds], Sequence[Feeds]], repeats: int
) -> PairedTimes:
    """Times ``repeats`` passes of each model over the same rows, one after the other, swapping who goes first.

    Stops early, with at least five pairs, once ``MAX_SECONDS_PER_BATCH_SIZE`` have passed.

    Args:
        original: One side.
        compressed: The other.
        feeds: The rows for each side; usually one call, several where a fixed batch size asks for it.
        repeats: Passes per side.
    """
    sides = ((original, feeds[0]), (compressed, feeds[1]))
    for _ in range(WARM_UP_CALLS):
        for model, rows in sides:
            _milliseconds(model, rows)
    times: tuple[list[float], list[float]] = ([], [])
    started = time.perf_counter()
    for index in range(repeats):
        for side in (0, 1) if index % 2 == 0 else (1, 0):
            times[side].append(_milliseconds(*sides[side]))
        if index >= 4 and time.perf_counter() - started > MAX_SECONDS_PER_BATCH_SIZE:
            break
    return PairedTimes(np.asarray(times[0]), np.asarray(times[1]))


def percentiles(times: Times) -> Percentiles:
    """Median and 95th percentile."""
    p50, p95 = np.percentile(times, (50, 95))
    return Percentiles(p50=float(p50), p95=float(p95))


def _milliseconds(model: Model, feeds: Sequence[Feeds]) -> float:
    started = time.perf_counter()
    for batch in feeds:
        model.run(batch)
    return (time.perf_counter() - started) * 1000.0
