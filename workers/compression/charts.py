"""Curves of a training as small line charts and as a line of words each."""

import re
from dataclasses import dataclass

from workers.compression.specs.metrics import HIGHER_IS_BETTER, LOWER_IS_BETTER, Curve

WIDTH, HEIGHT = 320.0, 120.0
"""Size of a plot in the chart's own units, without the labels around it."""
LOWER = LOWER_IS_BETTER | {"loss"}


@dataclass(frozen=True)
class Chart:
    """A curve drawn into a box of ``WIDTH`` by ``HEIGHT``, greater values higher up.

    Args:
        name: Of the figure.
        points: Pairs ``x,y`` separated by blanks, as SVG's ``points``.
        end: The last of them.
        lowest, highest: Smallest and greatest value, as written at the axis.
        first_update, last_update: Where the axis of updates begins and ends.
        first, best, last: Values of the curve; ``best`` is empty where neither direction is better.
    """

    name: str
    points: str
    end: tuple[str, str]
    lowest: str
    highest: str
    first_update: str
    last_update: str
    first: str
    best: str
    last: str


def draw(curve: Curve) -> Chart | None:
    """The chart of a curve; None of one without points."""
    if not curve.points:
        return None
    updates = [update for update, _ in curve.points]
    values = [value for _, value in curve.points]
    placed = [
        (_coordinate(_share(update, updates) * WIDTH), _coordinate((1.0 - _share(value, values)) * HEIGHT))
        for update, value in curve.points
    ]
    best = _best(curve)
    return Chart(
        name=curve.name,
        points=" ".join(f"{x},{y}" for x, y in placed),
        end=placed[-1],
        lowest=f"{min(values):.3g}",
        highest=f"{max(values):.3g}",
        first_update=f"{min(updates):,}",
        last_update=f"{max(updates):,}",
        first=_figure(values[0]),
        best="" if best is None else f"{_figure(best[1])} (update {best[0]:,})",
        last=_figure(values[-1]),
    )


def draw_all(curves: tuple[Curve, ...]) -> list[Chart]:
    """The charts of all curves that have points."""
    return [chart for chart in map(draw, curves) if chart is not None]


def _best(curve: Curve) -> tuple[int, float] | None:
    words = set(re.split(r"[^a-z0-9]+", curve.name.lower()))
    if words & HIGHER_IS_BETTER:
        return max(curve.points, key=lambda point: point[1])
    return min(curve.points, key=lambda point: point[1]) if words & LOWER else None


def _share(value: float, values: list[float] | list[int]) -> float:
    """Where ``value`` lies between the least and the greatest of ``values``; a constant lies in the middle."""
    low, high = min(values), max(values)
    return (value - low) / (high - low) if high > low else 0.5


def _coordinate(value: float) -> str:
    return f"{value:.1f}"


def _figure(value: float) -> str:
    return f"{value:.4g}"
