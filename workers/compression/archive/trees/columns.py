"""Trees as columns of numbers, and what of a tree follows from the rest of it.

All trees lie one behind the other, each in preorder: a node, all nodes of its left subtree, all of its right one.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from workers.compression.archive.trees.arrays import Floats

Integers = npt.NDArray[np.int64]
Places = npt.NDArray[np.uint64]


class Leaves(IntEnum):
    """What is stored of a leaf.

    The places of its values in a table, its samples of each class, or the sum of its samples and of their squares.
    """

    FLOATS = 0
    COUNTS = 1
    SUMS = 2


@dataclass
class Columns:
    """One entry per node, over all trees; 0 where a node has no such thing.

    Attributes:
        leaf: Whether it is one.
        feature: That it splits by.
        place: Of its threshold among the feature's thresholds.
        missing: Whether rows without the feature go left.
        weight: Samples of a leaf, each as often as it was drawn.
        repeats: How many of these were drawn before.
        held: Of a leaf, see ``Leaves``.
        right: Right child.
        end: The node behind the whole subtree.
        depth: Below the root, which has 0.
    """

    leaf: list[int]
    feature: list[int]
    place: list[int]
    missing: list[int]
    weight: list[int]
    repeats: list[int]
    right: list[int]
    end: list[int]
    depth: list[int]
    held: list[list[int]]

    @classmethod
    def empty(cls, nodes: int) -> "Columns":
        """Columns of zeros."""
        zeros = [[0] * nodes for _ in range(9)]
        leaf, feature, place, missing, weight, repeats, right, end, depth = zeros
        return cls(leaf, feature, place, missing, weight, repeats, right, end, depth, [[] for _ in range(nodes)])


def ordered(floats: Floats) -> Places:
    """Whole numbers in the order of the floats, one for each, neighbours for neighbours."""
    bits = np.ascontiguousarray(floats, "<f8").view(np.uint64)
    negative = bits >> np.uint64(63) == 1
    return np.where(negative, ~bits, bits | np.uint64(1 << 63))


def floats_of(places: Places) -> Floats:
    """The inverse of ``ordered``."""
    positive = places >> np.uint64(63) == 1
    return np.where(positive, places & np.uint64((1 << 63) - 1), ~places).view(np.float64)
