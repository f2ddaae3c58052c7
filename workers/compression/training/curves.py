"""Loss, rate and metric over the course of a training: events on the way, curves for the report."""

import math
from collections.abc import Sequence

from workers.compression.context import Context
from workers.compression.specs.metrics import Curve
from workers.compression.training.validation import Verdict

POINTS = 100
"""A training of more updates reports the mean of each stretch of them."""


class Curves:
    """Collects points, each also sent as an event.

    Args:
        updates: Of the whole training.
        before: Curves of an attempt that was cut off.
    """

    def __init__(self, context: Context, updates: int, before: Sequence[Curve]) -> None:
        self._context = context
        self._stretch = math.ceil(updates / POINTS)
        self._last = updates
        self._losses: list[float] = []
        self._points: dict[str, list[tuple[int, float]]] = {curve.name: list(curve.points) for curve in before}

    def update(self, update: int, loss: float, rate: float) -> None:
        """Takes the loss of an update, numbered from 1."""
        self._losses.append(loss)
        if update % self._stretch == 0 or update == self._last:
            self._add("train/loss", update, sum(self._losses) / len(self._losses))
            self._add("train/learning_rate", update, rate)
            self._losses.clear()

    def verdict(self, update: int, verdict: Verdict) -> None:
        """Takes a validation after so many updates."""
        if math.isfinite(verdict.loss) and abs(verdict.loss) <= 1e30:
            self._add("validation/loss", update, verdict.loss)
        if verdict.metric is not None and verdict.value is not None:
            self._add(f"validation/{verdict.metric}", update, verdict.value)

    def made(self) -> tuple[Curve, ...]:
        """The curves so far."""
        return tuple(Curve(name=name, points=tuple(points)) for name, points in self._points.items())

    def _add(self, name: str, update: int, value: float) -> None:
        points = self._points.setdefault(name, [])
        # A training with very many short epochs is thinned out rather than refused by the report.
        if len(points) >= 2000:
            del points[1::2]
        points.append((update, value))
        self._context.metric(name, value, update)
