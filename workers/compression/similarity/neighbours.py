"""Vectors near a given one among many, without comparing it to all of them.

Locality-sensitive hashing for Euclidean distance (Datar et al., 2004): projections onto random directions are cut into
intervals some times as wide as the distance sought; what falls into the same intervals in several directions is
probably near, and what is far hardly ever does, even where all vectors are alike, as the gains of norms are.
"""

from collections.abc import Hashable

import numpy as np

from workers.compression.similarity.sketches import LENGTH, Doubles, Sketch

LARGEST_DISTANCE = 0.1

_TABLES = 12
_DIRECTIONS = 16
_WIDTH = 16.0
"""Of an interval, in distances. Two vectors just that distance apart meet in one of the tables with odds of 99 %; two
that have nothing in common meet with odds of 1e-5 at the largest distance."""
_MOST_IN_A_PLACE = 32
"""What keeps the effort linear also where very many vectors lie near each other, but not near enough."""
_MARGIN = 1.5
"""How far beyond the distance sketches may be apart: they are right to a tenth, rarely to a third."""
_SEED = 0xD15C


class Neighbours:
    """Sketches in tables of places.

    Args:
        distance: Up to which neighbours are sought, relative to the shorter one; at most ``LARGEST_DISTANCE``.
    """

    def __init__(self, distance: float) -> None:
        random = np.random.default_rng(_SEED)
        self.compared = 0
        self._distance = distance
        self._directions = random.standard_normal((LENGTH, _TABLES * _DIRECTIONS)) / (_WIDTH * distance)
        self._offsets = random.random(_TABLES * _DIRECTIONS)
        self._places: dict[Hashable, list[int]] = {}
        self._sketches: list[Sketch] = []

    def add(self, sketch: Sketch, kind: Hashable) -> int:
        """Files a sketch and numbers it, from 0 on; only those of one ``kind`` are neighbours."""
        number = len(self._sketches)
        self._sketches.append(sketch)
        for place in self._places_of(sketch.direction, kind):
            there = self._places.setdefault(place, [])
            there.append(number)
            del there[:-_MOST_IN_A_PLACE]
        return number

    def near(self, sketch: Sketch, kind: Hashable) -> list[int]:
        """Numbers of filed sketches that are near, the nearest first; ``compared`` says how many were looked at."""
        met: set[int] = set()
        for place in self._places_of(sketch.direction, kind):
            met.update(self._places.get(place, ()))
        if not met:
            return []
        self.compared += len(met)
        numbers = sorted(met)
        apart = sketch.distances([self._sketches[number] for number in numbers])
        order = np.argsort(apart, kind="stable")
        return [numbers[place] for place in order if apart[place] <= _MARGIN * self._distance]

    def _places_of(self, direction: Doubles, kind: Hashable) -> list[Hashable]:
        intervals = np.floor(direction @ self._directions + self._offsets).astype(np.int32)
        rows = intervals.reshape(_TABLES, _DIRECTIONS)
        return [(kind, table, row.tobytes()) for table, row in enumerate(rows)]
