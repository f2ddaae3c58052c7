"""How a total sparsity is best spread over the parts of a model, going by what each part alone does to the outputs.

The error of all parts together is taken to be the sum of their own. For a given total the least sum is then a matter
of a convex program: parts give up weights where the next one costs least, along the lower convex hull of each part's
curve. That errors add up is an assumption: whoever uses shares measures what they really do.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

Floats = npt.NDArray[np.float64]

_GRID_STEPS = 256


@dataclass(frozen=True)
class Curve:
    """The error of a part by the share of it that is pruned; 0 where nothing is.

    Args:
        size: Number of weights.
        shares: Where the error was measured, ascending, in 0..1 without both ends.
        errors: What was measured there; not negative.
    """

    size: int
    shares: tuple[float, ...]
    errors: tuple[float, ...]

    def smooth(self) -> tuple[Floats, Floats]:
        """Shares on a fine grid and the error at each: monotone cubics through the measured points.

        The grid is even in the logarithm of the density, in which errors grow about evenly; it ends at the greatest
        share that was measured.
        """
        measured = -np.log1p(-np.array((0.0, *self.shares)))
        errors = np.maximum.accumulate(np.array((0.0, *self.errors)))
        grid = np.linspace(0.0, measured[-1], _GRID_STEPS + 1)
        found = np.maximum.accumulate(PchipInterpolator(measured, errors)(grid))
        return -np.expm1(-grid), np.asarray(found, np.float64)

    def hull(self) -> tuple[Floats, Floats]:
        """The corners of the largest convex function that lies nowhere above ``smooth``."""
        shares, errors = self.smooth()
        corners = [0]
        for index in range(1, len(shares)):
            while len(corners) > 1 and _is_above(shares, errors, corners[-2], corners[-1], index):
                corners.pop()
            corners.append(index)
        return shares[corners], errors[corners]


class Allotment:
    """The best shares for any total.

    Args:
        curves: By the part's name.
    """

    def __init__(self, curves: Mapping[str, Curve]) -> None:
        self._names = tuple(curves)
        self._sizes = np.array([curve.size for curve in curves.values()], np.float64)
        hulls = [curve.hull() for curve in curves.values()]
        self._most = np.array([shares[-1] for shares, _ in hulls])
        owners = np.repeat(np.arange(len(hulls)), [len(shares) - 1 for shares, _ in hulls])
        widths = np.concatenate([np.diff(shares) for shares, _ in hulls])
        rises = np.concatenate([np.diff(errors) for _, errors in hulls])
        # Stable, so that a part's own pieces, whose slopes rise, stay in their order where they are equal.
        order = np.argsort(rises / (widths * self._sizes[owners]), kind="stable")
        self._owners, self._widths = owners[order], widths[order]

    @property
    def most(self) -> float:
        """The largest total there are shares for."""
        return float(self._most @ self._sizes / self._sizes.sum())

    def shares(self, total: float) -> dict[str, float]:
        """The share of each part whose errors add up to least, all together ``total`` of the weights or ``most``."""
        weights = self._widths * self._sizes[self._owners]
        before = np.cumsum(weights) - weights
        taken = np.clip(total * self._sizes.sum() - before, 0.0, weights)
        found = np.bincount(self._owners, taken, len(self._names)) / self._sizes
        return dict(zip(self._names, np.minimum(found, self._most).tolist(), strict=True))


def _is_above(shares: Floats, errors: Floats, first: int, middle: int, last: int) -> bool:
    """Whether the middle point lies on or above the line between the two others."""
    rise = (errors[last] - errors[first]) * (shares[middle] - shares[first])
    return bool((errors[middle] - errors[first]) * (shares[last] - shares[first]) >= rise)


def total_of(shares: Mapping[str, float], sizes: Mapping[str, int]) -> float:
    """The share of all parts' weights that ``shares`` prune."""
    return sum(shares[name] * size for name, size in sizes.items()) / max(sum(sizes.values()), 1)
