"""The largest sparsity whose drop is tolerated: predicted from sensitivity curves, found by measuring."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from workers.compression.context import Context
from workers.compression.sensitivity.yardstick import Yardstick
from workers.compression.tolerance.allotting import Allotment, Curve
from workers.compression.tolerance.drops import Drop, JudgingRows
from workers.compression.tolerance.prunable import Prunable

SHARES = (0.4, 0.6, 0.8, 0.9, 0.95, 0.99)
"""Where each part's curve is measured; the last one is the most that any part loses."""
_RESOLUTION = 0.005
"""Relative to the weights that stay."""
_MOST_TRIALS = 12


def measure_curves(prunable: Prunable, yardstick: Yardstick, context: Context) -> dict[str, Curve]:
    """What each part does to the outputs when it alone is pruned, as a relative squared error."""
    sizes = prunable.sizes
    curves = {}
    for index, (name, size) in enumerate(sizes.items()):
        context.progress(0.6 * index / len(sizes), f"sensitivity of {name}")
        errors = []
        for share in SHARES:
            with prunable.pruned({name: share}) as run:
                errors.append(yardstick.effect(run).error)
        curves[name] = Curve(size, SHARES, tuple(errors))
    return curves


@dataclass(frozen=True)
class Trial:
    """A total sparsity, how it is spread over the parts, and what it did on the selection rows."""

    total: float
    shares: Mapping[str, float]
    drop: Drop


class Search:
    """Tries totals, each spread in the best way, until the largest one within a limit is bracketed closely.

    Drops are noisy and need not grow with sparsity at every step: what is found is a total whose measured drop is
    within the limit, while the next larger one tried is not.
    """

    def __init__(self, prunable: Prunable, allotment: Allotment, rows: JudgingRows, context: Context) -> None:
        self._prunable = prunable
        self._allotment = allotment
        self._rows = rows
        self._context = context
        self._trials: list[Trial] = []

    @property
    def count(self) -> int:
        """How many totals have been tried."""
        return len(self._trials)

    @property
    def mildest(self) -> Trial:
        """The smallest total that was tried."""
        return min(self._trials, key=lambda trial: trial.total)

    def is_most(self, trial: Trial) -> bool:
        """Whether nothing larger is ever tried."""
        return trial.total >= self._allotment.most

    def largest(self, limit: float, below: float = 1.0) -> Trial | None:
        """The largest total less than ``below`` found whose drop is at most ``limit``; goes on from earlier trials."""
        if not self._trials:
            self.tried(self._allotment.most)
        for _ in range(_MOST_TRIALS):
            low, high = self._bracket(limit, below)
            least = low.total if low is not None else 0.0
            if high is None or _density(least) - _density(high.total) < _RESOLUTION:
                break
            self.tried(-math.expm1(0.5 * (_density(least) + _density(high.total))))
        return self._bracket(limit, below)[0]

    def tried(self, total: float) -> Trial:
        """A total spread in the best way, and what it does."""
        shares = self._allotment.shares(total)
        with self._prunable.pruned(shares) as run:
            drop = self._rows.drop(run)
        trial = Trial(total, shares, drop)
        self._trials.append(trial)
        self._context.log(
            f"{total:.2%} zeros: {self._rows.metric} {drop.after:.4f} on the selection rows, a drop of {drop.value:.4f}"
        )
        self._context.progress(0.6 + 0.38 * min(self.count / _MOST_TRIALS, 1.0), f"tried {total:.1%} zeros")
        return trial

    def _bracket(self, limit: float, below: float) -> tuple[Trial | None, Trial | None]:
        """The largest trial that qualifies, and the smallest one beyond it."""
        within = (trial for trial in self._trials if trial.drop.value <= limit and trial.total < below)
        low = max(within, key=_total, default=None)
        beyond = [trial for trial in self._trials if low is None or trial.total > low.total]
        return low, min(beyond, key=_total, default=None)


def _total(trial: Trial) -> float:
    return trial.total


def _density(total: float) -> float:
    """Logarithm of the share that stays."""
    return math.log1p(-total)
