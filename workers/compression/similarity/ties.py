"""Which tensors of many can be stored once with another: identical ones, and ones as near as a tolerance says."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from workers.compression.families.model import Array
from workers.compression.similarity.identity import same_as
from workers.compression.similarity.neighbours import Neighbours
from workers.compression.similarity.sketches import relative_distance, sketched

Loaders = Mapping[str, Callable[[], Array]]
"""Tensors by name, each read when asked for."""

SMALLEST_NEAR = 1024
"""Elements; what a smaller tensor takes is not worth an error."""

_MOST_COMPARED = 4
_EXTENSIONS = frozenset({"bfloat16"})


@dataclass(frozen=True)
class Ties:
    """What may be stored once.

    Args:
        shared: Names of tensors, each mapped to the name of the one that is to be stored.
        near: For each stored tensor that stands for others than its own copies, the names of all of them with how
            often each stands in the model, itself first.
        compared: How many pairs of sketches were compared, and how many of tensors.
    """

    shared: Mapping[str, str]
    near: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    compared: tuple[int, int] = (0, 0)

    def representatives(self, tensors: Loaders, tolerance: float) -> Iterator[tuple[str, Array]]:
        """New values of stored tensors that stand for near ones, one at a time."""
        for name, members in self.near.items():
            values = representative([(tensors[member], times) for member, times in members.items()], tolerance)
            if values is not None:
                yield name, values


def find_ties(tensors: Loaders, tolerance: float = 0.0) -> Ties:
    """Tensors of the same type and shape that are identical, or near.

    Args:
        tensors: Taken in order; the first of several is the one that is stored.
        tolerance: Distance up to which floats count as near, relative to the shorter of two; 0 ties what is identical
            and nothing else. Identical are also tensors that hold NaN.
    """
    identical = same_as((name, load()) for name, load in tensors.items())
    if tolerance == 0.0:
        return Ties(identical)
    times = Counter(identical.values())
    left = {name: load for name, load in tensors.items() if name not in identical}
    leaders, compared = _leaders(left, tolerance)
    near: dict[str, dict[str, int]] = {}
    for name, leader in leaders.items():
        near.setdefault(leader, {leader: 1 + times[leader]})[name] = 1 + times[name]
    shared = {name: leaders.get(original, original) for name, original in identical.items()} | leaders
    return Ties({name: shared[name] for name in tensors if name in shared}, near, compared)


def representative(members: Sequence[tuple[Callable[[], Array], int]], tolerance: float) -> Array | None:
    """The mean of near tensors, of which the sum of squared distances is least; None where the first one serves better.

    Args:
        members: Each with how often it counts.
        tolerance: Within which the first one is near all others. The mean is taken if that holds for it too.
    """
    first = members[0][0]()
    total = sum(times for _, times in members)
    mean = np.zeros(first.shape, np.float64)
    for load, times in members:
        mean += load().astype(np.float64) * (times / total)
    values = mean.astype(first.dtype)
    return values if all(relative_distance(values, load()) <= tolerance for load, _ in members) else None


def _leaders(tensors: Loaders, tolerance: float) -> tuple[dict[str, str], tuple[int, int]]:
    """Each tensor that is near an earlier one that has no leader itself, mapped to that one."""
    neighbours = Neighbours(tolerance)
    known: list[str] = []
    leaders: dict[str, str] = {}
    compared = 0
    for name, load in tensors.items():
        values = load()
        sketch = sketched(values) if _may_be_near(values) else None
        if sketch is None:
            continue
        kind = (values.dtype.name, values.shape)
        for number in neighbours.near(sketch, kind)[:_MOST_COMPARED]:
            compared += 1
            if relative_distance(tensors[known[number]](), values) <= tolerance:
                leaders[name] = known[number]
                break
        else:
            neighbours.add(sketch, kind)
            known.append(name)
    return leaders, (neighbours.compared, compared)


def _may_be_near(values: Array) -> bool:
    floats = np.issubdtype(values.dtype, np.floating) or values.dtype.name in _EXTENSIONS
    return values.size >= SMALLEST_NEAR and floats
