"""What operators state of a network that is read from its start to its end, whatever file it came from."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from workers.compression.structure.relations import Axes, Elements, Relations, fixed
from workers.compression.structure.units import Product, Structure

CHANNEL_FROM = 2
"""Axes before are rows and channels, those from here on are spatial."""


class Unrelated(Exception):
    """An operator that no rule covers as it stands: whatever it touches stays."""


class Network(Relations):
    """Relations, and what multiplies.

    Attributes:
        products: Multiplications met.
        summed: Axes of stored tensors that products sum over.
        attention: Axes of activations that are multiplied with each other.
        parts: Axes that are pieces of others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []
        self.summed: list[Elements] = []
        self.attention: list[Elements] = []
        self.parts: list[Elements] = []

    def structure(self, stored: Mapping[str, Axes]) -> Structure:
        """The units, given the axes of stored tensors by name."""
        summed = set(np.concatenate([np.zeros(0, np.int64), *self.summed]).tolist())
        readers = {
            (name, place)
            for name, axes in stored.items()
            for place, axis in enumerate(axes)
            if len(axis) and axis[0] != 0 and int(axis[0]) in summed
        }
        products, attention, parts = tuple(self.products), tuple(self.attention), tuple(self.parts)
        return Structure(self.units(), dict(stored), frozenset(readers), products, attention, parts)

    def convolution(self, image: Axes, kernel: Axes, bias: Axes | None, shape: Sequence[int], groups: int) -> Axes:
        """The result; where each group has one channel, there are as many groups as channels stay.

        Args:
            kernel: (outputs, inputs of a group, spatial...).
            shape: Of the result.
        """
        made, read = kernel[0], kernel[1]
        self.lock(*image[CHANNEL_FROM:], *kernel[CHANNEL_FROM:])
        if groups == 1:
            self.link(image[1], read)
            self.summed.append(read)
        elif len(read) == 1:
            self.link(np.repeat(image[1], len(made) // groups), made)
        else:
            # The groups stay; in each of them the channels at the same places go.
            self.link(image[1], np.tile(read, groups))
            self.link(made, np.tile(made[: len(made) // groups], groups))
            self.summed.append(read)
        if bias is not None:
            self.link(bias[0], made)
        factor = shape[0] * math.prod(shape[2:]) * math.prod(len(axis) for axis in kernel[2:])
        self.products.append(Product(factor, (made, read)))
        return (image[0], made, *fixed(shape[2:]))

    def transposed_convolution(
        self, image: Axes, kernel: Axes, bias: Axes | None, shape: Sequence[int], groups: int
    ) -> Axes:
        """The result; groups only of one channel on both sides.

        Args:
            kernel: (inputs, outputs of a group, spatial...).
            shape: Of the result.
        """
        read, made = kernel[0], kernel[1]
        self.lock(*image[CHANNEL_FROM:], *kernel[CHANNEL_FROM:])
        self.link(image[1], read)
        if groups == 1:
            self.summed.append(read)
        elif groups == len(read) and len(made) == 1:
            made = image[1]
        else:
            raise Unrelated
        if bias is not None:
            self.link(bias[0], made)
        factor = shape[0] * math.prod(len(axis) for axis in (*image[2:], *kernel[2:]))
        self.products.append(Product(factor, (read, kernel[1])))
        return (image[0], made, *fixed(shape[2:]))

    def product(self, left: Axes, right: Axes, stored: tuple[bool, bool]) -> Axes:
        """A matrix product; of one of activations nothing summed over may go.

        Args:
            stored: Which side is a stored weight.
        """
        if min(len(left), len(right)) < 2:
            raise Unrelated
        first, second = left[-1], right[-2]
        if any(stored):
            self.link(first, second)
            self.summed += [axis for axis, is_stored in zip((first, second), stored, strict=True) if is_stored]
        else:
            self.lock(first, second)
            self.attention += [*left[:-2], *right[:-2]]
        batch = self.broadcast([left[:-2], right[:-2]]) if len(left) + len(right) > 4 else ()
        self.products.append(Product(1.0, (*batch, left[-2], first, right[-1])))
        return (*batch, left[-2], right[-1])

    def by_channel(self, axes: Axes, parameters: Iterable[Axes]) -> Axes:
        """Each channel is shifted and scaled by numbers of its own."""
        for parameter in parameters:
            self.link(parameter[0], axes[1])
        return axes

    def normalized(self, axes: Axes, over: Sequence[Elements], parameters: Iterable[Axes] = ()) -> Axes:
        """Some axes are looked at as a whole, by parameters that lie along them."""
        self.lock(*over)
        for parameter in parameters:
            self.lock(*parameter)
        return axes

    def resized(self, axes: Axes, shape: Sequence[int]) -> Axes:
        """Pooled or interpolated along the spatial axes."""
        self.lock(*axes[CHANNEL_FROM:])
        return (*axes[:CHANNEL_FROM], *fixed(shape[CHANNEL_FROM:]))

    def reduced(self, axes: Axes, over: Iterable[int], *, keep: bool) -> Axes:
        """Summed, averaged or the like along some axes, which become one long or vanish."""
        gone = {place % len(axes) for place in over}
        self.lock(*(axes[place] for place in gone))
        result: Axes = ()
        for place, axis in enumerate(axes):
            result += (fixed((1,)) if keep else ()) if place in gone else (axis,)
        return result

    def looked_up(self, axes: Axes, place: int, indices: Axes) -> Axes:
        """Picked along one axis by computed numbers."""
        self.lock(axes[place], *indices)
        return (*axes[:place], *fixed([len(axis) for axis in indices]), *axes[place + 1 :])

    def padded(self, axes: Axes, shape: Sequence[int], grown: Iterable[int]) -> Axes:
        """Filled up at the ends of some axes."""
        result = list(axes)
        for place in grown:
            self.lock(axes[place])
            result[place] = fixed((shape[place],))[0]
        return tuple(result)

    def split(self, axes: Axes, along: int, portions: Sequence[int]) -> list[Axes]:
        """Cut into parts of so many elements, as far as they go."""
        bounds = np.minimum(np.cumsum([0, *portions]), len(axes[along]))
        parts = [axes[along][start:stop] for start, stop in pairwise(bounds)]
        if any(len(part) == 0 for part in parts):
            raise Unrelated
        self.parts += parts
        return [(*axes[:along], part, *axes[along + 1 :]) for part in parts]

    def window(
        self, axis: Elements, start: int, end: int, step: int
    ) -> tuple[Elements, Elements | None, Elements | None]:
        """What is cut out of an axis, and the elements before its start and its end.

        The latter are None where a bound stays as it is. Bounds counted from the end or in steps keep the axis whole.
        """
        low, high, _ = slice(start, end, step).indices(len(axis))
        cut = axis[start:end:step]
        self.parts.append(cut)
        if step == 1 and len(cut) == len(axis):
            return axis, None, axis if end == len(axis) else None
        if step != 1 or start < 0 or end < 0:
            self.lock(axis)
            return cut, None, None
        return cut, axis[:low], axis[:high] if end <= len(axis) else None
