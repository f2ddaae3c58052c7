"""Task metrics and fidelity as plain functions and streaming sums over arrays."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from workers.compression.specs.metrics import Fidelity, Interval

Floats = npt.NDArray[np.float64]
Metric = Callable[[npt.NDArray[np.generic], Floats], float]

MAX_SQNR_DB = 200.0
"""Equal outputs have infinite SQNR; JSON has no infinity."""
RESAMPLES = 500


def wilson_interval(correct: int, count: int) -> Interval:
    """95 % Wilson score interval of a share (Wilson 1927), right also near 0 and 1."""
    z = 1.959963984540054
    share = correct / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    margin = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # At 0 and 1 the formula's end is the share itself, but for rounding.
    low, high = min(share, max(0.0, centre - margin)), max(share, min(1.0, centre + margin))
    return Interval(n=count, low=low, high=high)


def bootstrap_interval(
    metric: Metric, targets: npt.NDArray[np.generic], predictions: Floats, random: np.random.Generator
) -> Interval | None:
    """95 % percentile bootstrap over rows; None where resampling leaves the metric undefined."""
    count = len(targets)
    values = []
    for _ in range(RESAMPLES):
        rows = random.integers(0, count, count)
        value = metric(targets[rows], predictions[rows])
        if math.isfinite(value):
            values.append(value)
    if len(values) < RESAMPLES // 2:
        return None
    low, high = np.percentile(values, (2.5, 97.5))
    return Interval(n=count, low=float(low), high=float(high))


def spearman(targets: npt.NDArray[np.generic], predictions: Floats) -> float:
    """Rank correlation; NaN where one side is constant."""
    return pearson(_ranks(targets), _ranks(predictions))


def pearson(targets: npt.NDArray[np.generic], predictions: Floats) -> float:
    """Linear correlation; NaN where one side is constant."""
    left = np.asarray(targets, np.float64)
    left = left - left.mean()
    right = predictions - predictions.mean()
    scale = math.sqrt(float(left @ left) * float(right @ right))
    return float(left @ right) / scale if scale > 0 else math.nan


def rmse(targets: npt.NDArray[np.generic], predictions: Floats) -> float:
    """Root of the mean squared error."""
    return math.sqrt(float(np.mean((np.asarray(targets, np.float64) - predictions) ** 2)))


def mae(targets: npt.NDArray[np.generic], predictions: Floats) -> float:
    """Mean absolute error."""
    return float(np.mean(np.abs(np.asarray(targets, np.float64) - predictions)))


def r2(targets: npt.NDArray[np.generic], predictions: Floats) -> float:
    """Share of the variance explained; NaN on constant targets."""
    truth = np.asarray(targets, np.float64)
    total = float(np.sum((truth - truth.mean()) ** 2))
    return 1.0 - float(np.sum((truth - predictions) ** 2)) / total if total > 0 else math.nan


def binary_auc(targets: npt.NDArray[np.generic], predictions: Floats) -> float:
    """Area under the ROC curve of the score of class 1 by its rank sum; NaN where one class is missing."""
    positive = np.asarray(targets) == 1
    hits, misses = int(positive.sum()), int((~positive).sum())
    if not hits or not misses:
        return math.nan
    return float((_ranks(predictions)[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def macro_f1(targets: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> float:
    """F1 averaged over the classes that occur in either."""
    size = int(max(targets.max(), labels.max())) + 1
    hits = np.bincount(targets[targets == labels], minlength=size)
    claimed = np.bincount(targets, minlength=size) + np.bincount(labels, minlength=size)
    occurring = claimed > 0
    return float(np.mean(2.0 * hits[occurring] / claimed[occurring]))


REGRESSION_METRICS: dict[str, Metric] = {"rmse": rmse, "mae": mae, "r2": r2}
SIMILARITY_METRICS: dict[str, Metric] = {"spearman": spearman, "pearson": pearson}


def _ranks(values: npt.NDArray[np.generic]) -> Floats:
    """Average ranks, ties shared."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray(last[inverse] - (counts[inverse] - 1) / 2.0, np.float64)


@dataclass
class FidelitySums:
    """Running sums over rows of one output, original against compressed.

    ``cosine`` is the mean over rows of the cosine of the flattened row; ``sqnr_db`` is over all values together.
    """

    rows: int = 0
    cosine: float = 0.0
    signal: float = 0.0
    noise: float = 0.0
    agreeing: int = 0
    judged: int = 0
    max_abs_error: float = 0.0
    _finite: bool = field(default=True, repr=False)

    def add(self, original: npt.NDArray[np.generic], compressed: npt.NDArray[np.generic], *, classes: bool) -> None:
        """Takes one batch of the same rows; ``classes`` says that the last axis holds class scores."""
        left = np.asarray(original, np.float64).reshape(len(original), -1)
        right = np.asarray(compressed, np.float64).reshape(len(compressed), -1)
        known = np.isfinite(left)
        self._finite = self._finite and bool(np.isfinite(right[known]).all())
        # Where the original itself gives no number there is nothing to be faithful to.
        left, right = np.where(known, left, 0.0), np.where(known & np.isfinite(right), right, 0.0)
        error = right - left
        self.rows += len(left)
        self.signal += float(np.sum(left * left))
        self.noise += float(np.sum(error * error))
        self.max_abs_error = max(self.max_abs_error, float(np.max(np.abs(error), initial=0.0)))
        self.cosine += float(np.sum(row_cosines(left, right)))
        if classes:
            same = np.argmax(original, axis=-1) == np.argmax(compressed, axis=-1)
            self.agreeing += int(np.sum(same))
            self.judged += same.size

    def result(self) -> Fidelity:
        """The figures so far."""
        return Fidelity(
            cosine=min(1.0, self.cosine / max(self.rows, 1)),
            sqnr_db=sqnr_db(self.signal, self.noise),
            top1_agreement=self.agreeing / self.judged if self.judged else None,
            max_abs_error=self.max_abs_error,
        )

    @property
    def finite(self) -> bool:
        """Whether the compressed model gave numbers throughout."""
        return self._finite


def sqnr_db(signal: float, noise: float) -> float:
    """Signal to quantization noise ratio in dB from the two sums of squares, capped at ``MAX_SQNR_DB``."""
    if noise <= 0.0:
        return MAX_SQNR_DB
    if signal <= 0.0:
        return -MAX_SQNR_DB
    return float(np.clip(10.0 * math.log10(signal / noise), -MAX_SQNR_DB, MAX_SQNR_DB))


def worst(fidelities: list[Fidelity]) -> Fidelity:
    """The worst figure over a model's outputs: no output hides behind another."""
    agreements = [found.top1_agreement for found in fidelities if found.top1_agreement is not None]
    return Fidelity(
        cosine=min(found.cosine for found in fidelities),
        sqnr_db=min(found.sqnr_db for found in fidelities),
        top1_agreement=min(agreements) if agreements else None,
        max_abs_error=max(found.max_abs_error for found in fidelities),
    )


def row_cosines(left: Floats, right: Floats) -> Floats:
    """Cosine of each row of two matrices [n, k]; 1 where both rows are zero, 0 where one is."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    products = np.einsum("ij,ij->i", left, right)
    both_zero = (np.linalg.norm(left, axis=1) == 0) & (np.linalg.norm(right, axis=1) == 0)
    return np.where(both_zero, 1.0, np.divide(products, norms, out=np.zeros_like(products), where=norms > 0))
