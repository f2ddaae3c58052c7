"""Units of a network: channels that can only be removed together, and what is saved by removing them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.compression.structure.relations import FIXED, Axes, Elements

Removed = npt.NDArray[np.bool_]
"""For each unit whether it goes; ``removed[FIXED]`` is False."""


@dataclass(frozen=True)
class Product:
    """What multiplies: its multiply-accumulates are ``factor`` times the lengths of all ``axes``."""

    factor: float
    axes: Axes


@dataclass(frozen=True)
class Group:
    """Units that lie on the same axes of the same weights, of which so and so many may go.

    Args:
        units: Their numbers.
        kind: Channels of convolutions, neurons of linear layers, or heads of attention.
        makers: Names of the weights that make them: the channels are the weights' outputs.
        width: Channels to a unit, where there are fewest.
    """

    units: Elements
    kind: str
    makers: tuple[str, ...]
    width: int


@dataclass(frozen=True)
class Structure:
    """A network's units.

    Args:
        units: Of each element number.
        stored: Axes of weights and of other stored tensors, by name.
        summed: Stored tensors and axes over which products sum: who reads channels.
        products: What multiplies.
        attention: Axes along which activations are multiplied with each other.
        parts: Axes that are pieces of others, of which something has to be left too.
    """

    units: Elements
    stored: Mapping[str, Axes]
    summed: frozenset[tuple[str, int]]
    products: Sequence[Product]
    attention: Sequence[Elements]
    parts: Sequence[Elements] = ()

    @property
    def count(self) -> int:
        """Number of units, the fixed one counted."""
        return int(self.units.max(initial=FIXED)) + 1

    def kept(self, axis: Elements, removed: Removed) -> npt.NDArray[np.bool_]:
        """Which elements of an axis stay."""
        return np.asarray(~removed[self.units[axis]])

    def length(self, axis: Elements, removed: Removed) -> int:
        """How long an axis will be."""
        return int(np.count_nonzero(self.kept(axis, removed)))

    def macs(self, removed: Removed) -> float:
        """Multiply-accumulates without ``removed`` units."""
        return sum(
            product.factor * float(np.prod([self.length(axis, removed) for axis in product.axes]))
            for product in self.products
        )

    def groups(self) -> list[Group]:
        """Every unit that may go, with those on the same axes, in order of their numbers."""
        places = [(name, place) for name, axes in self.stored.items() for place in range(len(axes))]
        axes = [self.stored[name][place] for name, place in places]
        lying: dict[int, list[int]] = defaultdict(list)
        widths = np.full(self.count, np.iinfo(np.int64).max)
        for number, axis in enumerate([*axes, *self.parts]):
            found, counts = np.unique(self.units[axis], return_counts=True)
            widths[found] = np.minimum(widths[found], counts) if number < len(axes) else widths[found]
            for unit in found[found != FIXED].tolist():
                lying[unit].append(number)
        gathered: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for unit in sorted(lying):
            gathered[tuple(lying[unit])].append(unit)
        return [
            self._group(np.array(units), [places[number] for number in numbers if number < len(places)], widths)
            for numbers, units in gathered.items()
        ]

    def _group(self, units: Elements, places: Sequence[tuple[str, int]], widths: Elements) -> Group:
        makers = tuple(name for name, place in places if (name, place) not in self.summed)
        spatial = any(len(self.stored[name]) > 2 for name, _ in places)
        heads = any(np.isin(self.units[axis], units).any() for axis in self.attention)
        kind = "heads" if heads else "channels" if spatial else "neurons"
        return Group(units, kind, makers, int(widths[units].min()))
