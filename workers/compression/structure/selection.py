"""Which units go: those that matter least, until as much is saved as was asked for."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from workers.compression.structure.importance import Scores
from workers.compression.structure.units import Group, Removed


@dataclass(frozen=True)
class Limits:
    """What every group keeps.

    Args:
        least: The share of a group's units that stays in any case.
        round_to: Channels stay in multiples of it, where a group has as many.
    """

    least: float
    round_to: int

    def kept(self, group: Group, wanted: int) -> int:
        """How many units of a group stay if ``wanted`` should."""
        count = len(group.units)
        step = self.round_to // math.gcd(self.round_to, group.width)
        floor = max(1, math.ceil(self.least * count))
        return min(count, math.ceil(max(wanted, floor) / step) * step)


def select(
    groups: Sequence[Group], scores: Scores, limits: Limits, count: int, enough: Callable[[Removed], bool]
) -> Removed | None:
    """The fewest units, by ascending score over all groups, with which it is ``enough``; None if it never is.

    Args:
        scores: Of each unit, comparable over groups.
        count: Number of units, the fixed one counted.
        enough: Whether enough is saved without some units; once true, true for more.
    """
    thresholds = np.unique(np.concatenate([scores[group.units] for group in groups])) if groups else np.zeros(0)
    low, high = 0, len(thresholds) - 1
    if high < 0 or not enough(most(groups, scores, limits, count)):
        return None
    while low < high:
        middle = (low + high) // 2
        if enough(_removed_below(groups, scores, limits, count, thresholds[middle])):
            high = middle
        else:
            low = middle + 1
    return _removed_below(groups, scores, limits, count, thresholds[low])


def most(groups: Sequence[Group], scores: Scores, limits: Limits, count: int) -> Removed:
    """All units that may go."""
    return _removed_below(groups, scores, limits, count, np.inf)


def _removed_below(groups: Sequence[Group], scores: Scores, limits: Limits, count: int, threshold: float) -> Removed:
    removed = np.zeros(count, np.bool_)
    for group in groups:
        order = group.units[np.argsort(scores[group.units], kind="stable")]
        wanted = int(np.count_nonzero(scores[order] > threshold))
        removed[order[: len(order) - limits.kept(group, wanted)]] = True
    return removed
