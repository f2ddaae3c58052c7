"""Which channels of which tensors can only be removed together, as operators state it.

Every axis of every tensor is a row of element numbers. Operators hand numbers on (an activation has its input's axes),
link numbers (the terms of a sum), or lock them (a softmax over channels). Channels linked with each other by any chain
are one unit; a unit linked with ``FIXED`` stays. This is the dependency graph of Fang et al. (arXiv:2301.12900), down
to single channels, so that concatenations, splits and heads need no rules beyond how they arrange numbers.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Elements = npt.NDArray[np.int64]
Axes = tuple[Elements, ...]
FIXED = 0
"""The number of whatever has to stay."""


def fixed(shape: Sequence[int]) -> Axes:
    """Axes of which nothing can be removed."""
    return tuple(np.zeros(size, np.int64) for size in shape)


def sizes(axes: Axes) -> tuple[int, ...]:
    """The shape of a tensor with these axes."""
    return tuple(len(axis) for axis in axes)


class Relations:
    """Hands out element numbers and collects what is stated of them."""

    def __init__(self) -> None:
        self._count = 1
        self._links: list[tuple[Elements, Elements]] = []
        self._cuts: list[tuple[Elements, list[Elements]]] = []
        self._locked: set[int] = set()

    def fresh(self, size: int) -> Elements:
        """An axis of which nothing is known yet; one of length 1 is fixed, for nothing would be left of it."""
        if size <= 1:
            return np.zeros(size, np.int64)
        self._count += size
        return np.arange(self._count - size, self._count, dtype=np.int64)

    def link(self, first: Elements, second: Elements) -> None:
        """Elements at the same place go together; axes that cannot be laid side by side stay."""
        if len(first) != len(second):
            self.lock(first, second)
        elif first is not second:
            self._links.append((first, second))

    def lock(self, *axes: Elements) -> None:
        """Elements that have to stay."""
        for axis in axes:
            self._links.append((axis, np.zeros_like(axis)))
            self._locked.update(axis[:1].tolist())

    def units(self) -> Elements:
        """The unit of each element number; 0 is what stays, other units count up from 1 in order of their numbers."""
        links = [*self._links, *(link for cut in self._cuts for link in self._of_cut(*cut))]
        first = np.concatenate([link[0] for link in links] or [np.zeros(0, np.int64)])
        second = np.concatenate([link[1] for link in links] or [np.zeros(0, np.int64)])
        shape = (self._count, self._count)
        graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=shape)
        labels = connected_components(graph, directed=False)[1]
        _, places, numbers = np.unique(labels, return_index=True, return_inverse=True)
        order = np.argsort(np.argsort(places))
        return np.asarray(order[numbers], np.int64)

    def _of_cut(self, whole: Elements, parts: Sequence[Elements]) -> Iterator[tuple[Elements, Elements]]:
        """What an axis cut into ``parts`` relates: the outermost one that no operator locks itself may be removed."""
        free = [place for place, part in enumerate(parts) if part[0] not in self._locked]
        chosen = free[0] if free else 0
        shape = [1] * len(parts)
        shape[chosen] = -1
        laid_out = np.broadcast_to(parts[chosen].reshape(shape), [len(part) for part in parts])
        yield whole, laid_out.reshape(-1)
        yield from ((part, np.zeros_like(part)) for place, part in enumerate(parts) if place != chosen)

    def broadcast(self, operands: Sequence[Axes]) -> Axes:
        """The axes of an elementwise result: operands are aligned at the end, axes of length 1 are repeated."""
        rank = max(len(axes) for axes in operands)
        result = []
        for place in range(-rank, 0):
            found = [axes[place] for axes in operands if len(axes) >= -place]
            long = [axis for axis in found if len(axis) != 1]
            for other in long[1:]:
                self.link(long[0], other)
            result.append((long or found)[0])
        return tuple(result)

    def concatenated(self, parts: Sequence[Axes], axis: int) -> Axes:
        """The axes of tensors laid one after the other along ``axis``."""
        for other in parts[1:]:
            for place, (one, two) in enumerate(zip(parts[0], other, strict=True)):
                if place != axis % len(other):
                    self.link(one, two)
        result = list(parts[0])
        result[axis] = np.concatenate([axes[axis] for axes in parts])
        return tuple(result)

    def reshaped(self, axes: Axes, shape: Sequence[int]) -> Axes:
        """The axes of a tensor's elements read in the same order in another shape.

        Of an axis cut into several, and of several made one, the outer part can be removed (a head with all it consists
        of, a channel with all its pixels), the inner ones stay. Of one cut where the outer part has to stay (queries,
        keys and values in one weight), it is the next one. Lengths of 1 do not count.
        """
        result: list[Elements] = list(fixed(shape))
        for inner, outer in _segments(sizes(axes), shape):
            old = [axes[place] for place in inner if len(axes[place]) != 1]
            new = [place for place in outer if shape[place] != 1]
            if len(old) == 1 and len(new) == 1:
                result[new[0]] = old[0]
            elif len(old) == 1 and new:
                for place in new:
                    result[place] = self.fresh(shape[place])
                self._cuts.append((old[0], [result[place] for place in new]))
            elif len(new) == 1 and old:
                result[new[0]] = np.repeat(old[0], shape[new[0]] // len(old[0]))
                self.lock(*old[1:])
            else:
                self.lock(*old)
        return tuple(result)


def _segments(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Runs of old and new axes that hold the same elements, as short as possible."""
    if math.prod(old) != math.prod(new) or not math.prod(old):
        return [(list(range(len(old))), list(range(len(new))))]
    found = []
    left, right = list(range(len(old))), list(range(len(new)))
    while left or right:
        ours, theirs = left[:1], right[:1]
        del left[:1], right[:1]
        while math.prod(old[place] for place in ours) != math.prod(new[place] for place in theirs):
            less = math.prod(old[place] for place in ours) < math.prod(new[place] for place in theirs)
            (ours if less else theirs).append((left if less else right).pop(0))
        found.append((ours, theirs))
    return found
