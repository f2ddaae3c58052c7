"""What follows from a forest's columns: whole nodes and values, but for the steps that residues add.

Sums are of whole numbers below 2**53, or go level by level; each operation on floats is one of IEEE 754 in double
precision, rounded to the nearest, so that every machine gets the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.compression.archive.trees.arrays import NODE, Floats
from workers.compression.archive.trees.columns import Columns, Integers, Leaves, Places, floats_of

_LEAF_FEATURE, _LEAF_THRESHOLD = -2, -2.0


@dataclass(frozen=True)
class Shape:
    """Where the nodes of all trees lie: for each node, in the numbers of all nodes together."""

    leaf: npt.NDArray[np.bool_]
    right: Integers
    end: Integers
    depth: Integers
    weight: Integers

    @classmethod
    def of(cls, columns: Columns) -> "Shape":
        """The shape and the weights of inner nodes too."""
        end = np.array(columns.end, np.int64)
        weight = summed(np.array(columns.weight, np.int64), end)
        leaf = np.array(columns.leaf, np.bool_)
        return cls(leaf, np.array(columns.right, np.int64), end, np.array(columns.depth, np.int64), weight)


def summed(leaves: Integers, end: Integers) -> Integers:
    """For each node the sum of what its leaves have; ``leaves`` is 0 at inner nodes."""
    before = np.concatenate([np.zeros_like(leaves[:1]), np.cumsum(leaves, axis=0)])
    sums: Integers = before[end] - before[np.arange(len(end))]
    return sums


def nodes_of(columns: Columns, shape: Shape, thresholds: Sequence[Places]) -> npt.NDArray[np.void]:
    """All nodes, still without impurity."""
    roots = np.flatnonzero(shape.depth == 0)
    root = np.repeat(roots, np.diff(roots, append=len(shape.leaf)))
    nodes = np.zeros(len(shape.leaf), NODE)
    nodes["left_child"] = np.where(shape.leaf, -1, np.arange(len(root)) + 1 - root)
    nodes["right_child"] = np.where(shape.leaf, -1, shape.right - root)
    nodes["feature"] = np.where(shape.leaf, _LEAF_FEATURE, columns.feature)
    starts = np.cumsum([0, *map(len, thresholds)])[columns.feature]
    listed = floats_of(np.concatenate([*thresholds, np.zeros(1, np.uint64)]))
    place = np.where(shape.leaf, 0, starts + np.array(columns.place, np.int64))
    nodes["threshold"] = np.where(shape.leaf, _LEAF_THRESHOLD, listed[place])
    nodes["missing_go_to_left"] = columns.missing
    nodes["weighted_n_node_samples"] = shape.weight
    nodes["n_node_samples"] = shape.weight - summed(np.array(columns.repeats, np.int64), shape.end)
    return nodes


def exact_figures(columns: Columns, shape: Shape, leaves: Leaves, outputs: int) -> tuple[Floats, Floats]:
    """Values [n, outputs] and impurities [n] of whole numbers: shares and Gini, or mean and variance."""
    width = outputs if leaves is Leaves.COUNTS else 2
    held = np.zeros((len(shape.leaf), width), np.int64)
    held[shape.leaf] = [known for known, leaf in zip(columns.held, columns.leaf, strict=True) if leaf]
    totals = summed(held, shape.end).astype(np.float64)
    weight = shape.weight.astype(np.float64)
    if leaves is Leaves.COUNTS:
        squares = np.zeros(len(weight))
        for place in range(outputs):
            squares += totals[:, place] * totals[:, place]
        return totals / weight[:, None], 1.0 - squares / (weight * weight)
    mean = totals[:, 0] / weight
    return mean[:, None], totals[:, 1] / weight - mean * mean


def expected(inner: Integers, shape: Shape, figures: Floats) -> Floats:
    """Values and impurity [n, outputs + 1] of inner nodes if they are means of what their children have."""
    left, right = inner + 1, shape.right[inner]
    weights = [shape.weight[which].astype(np.float64)[:, None] for which in (left, right, inner)]
    first, second = figures[left], figures[right]
    values = (weights[0] * first[:, :-1] + weights[1] * second[:, :-1]) / weights[2]
    spread = weights[0] * (first[:, -1:] + first[:, :1] * first[:, :1])
    spread = spread + weights[1] * (second[:, -1:] + second[:, :1] * second[:, :1])
    return np.concatenate([values, spread / weights[2] - values[:, :1] * values[:, :1]], axis=1)


def levels(shape: Shape) -> Iterator[Integers]:
    """The inner nodes of each depth, the deepest first."""
    inner = np.flatnonzero(~shape.leaf)
    inner = inner[np.argsort(-shape.depth[inner], kind="stable")]
    yield from np.split(inner, np.flatnonzero(np.diff(shape.depth[inner])) + 1)
