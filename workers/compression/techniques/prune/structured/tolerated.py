"""How many units may go within ``max_drop``."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np

from workers.compression.context import Context
from workers.compression.families.weights import CompressibleModel, Floats, Weight
from workers.compression.sensitivity.yardstick import Run
from workers.compression.structure.units import Removed
from workers.compression.tolerance.finding import find_shares

_UNITS = "units"

Choose = Callable[[float], Removed]
Fit = Callable[[Removed], Sequence[tuple[Weight, Floats]]]


class _Units:
    """All units as one part: importance has settled already which of them go first."""

    def __init__(self, model: CompressibleModel, count: int, choose: Choose, fit: Fit) -> None:
        self._model = model
        self._count = count
        self._choose = choose
        self._fit = fit

    @property
    def sizes(self) -> Mapping[str, int]:
        """One part."""
        return {_UNITS: self._count}

    def pruned(self, shares: Mapping[str, float]) -> AbstractContextManager[Run]:
        """The model with zeros for what weights read of the units: it computes what the smaller one will."""
        share = shares.get(_UNITS, 0.0)
        return self._model.varied(self._fit(self._choose(share)) if share else ())

    def total(self, shares: Mapping[str, float]) -> float:
        """Not quite what was asked for: units go by whole multiples, and some of each layer stay."""
        return float(np.count_nonzero(self._choose(shares[_UNITS]))) / self._count


def find_units(
    model: CompressibleModel, count: int, choose: Choose, fit: Fit, max_drop: float, context: Context
) -> Removed:
    """The most units that may go.

    Args:
        count: Of all units among which is chosen.
        choose: About a share of them, or as many as may go.
        fit: Values of the weights that read removed units.

    Raises:
        ConstraintInfeasible: As ``find_shares``.
    """
    return choose(find_shares(model, _Units(model, count, choose, fit), max_drop, context).shares[_UNITS])
