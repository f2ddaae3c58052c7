"""Columns of given trees."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from workers.compression.archive.trees.arrays import Floats, Tree
from workers.compression.archive.trees.columns import Columns, Integers, Leaves, Places, ordered
from workers.compression.archive.trees.derived import Shape, exact_figures, expected, nodes_of
from workers.compression.archive.trees.gathered import Gathered

_EXACT = float(1 << 53)
_MOST_CLASSES = 256


def gather(trees: Sequence[Tree]) -> Gathered | None:
    """Takes trees apart; None unless they are in preorder and of whole samples, so that ``Gathered`` says it all."""
    outputs = trees[0].values.shape[1]
    if any(tree.values.shape[1] != outputs for tree in trees):
        return None
    nodes = np.concatenate([tree.nodes for tree in trees])
    values = np.concatenate([tree.values for tree in trees])
    columns = _columns(nodes, [len(tree.nodes) for tree in trees])
    if columns is None:
        return None
    shape = Shape.of(columns)
    thresholds, times = _thresholds(nodes, columns)
    if not _same(nodes, nodes_of(columns, shape, thresholds)):
        return None
    for leaves in (Leaves.COUNTS, Leaves.SUMS):
        table = _whole(nodes, values, columns, shape, leaves)
        if table is not None:
            held = exact_figures(columns, shape, leaves, outputs)
            if held[0].tobytes() == values.tobytes():
                steps = ordered(nodes["impurity"]) - ordered(held[1])
                residues = steps[:, None] if steps.any() else None
                return Gathered(columns, leaves, outputs, thresholds, times, table, residues)
    table, residues = _floats(nodes, values, columns, shape)
    return Gathered(columns, Leaves.FLOATS, outputs, thresholds, times, table, residues)


def _columns(nodes: npt.NDArray[np.void], sizes: Sequence[int]) -> Columns | None:
    """Shape and samples; None unless all trees are in preorder."""
    leaf = nodes["left_child"] == -1
    weight, drawn = nodes["weighted_n_node_samples"], nodes["n_node_samples"]
    if nodes["missing_go_to_left"].max() > 1:
        return None
    if not ((weight >= 1) & (weight < _EXACT) & (weight == np.floor(weight)) & (drawn >= 1) & (drawn <= weight)).all():
        return None
    columns = Columns.empty(len(nodes))
    columns.leaf = leaf.astype(int).tolist()
    columns.weight = np.where(leaf, weight, 0).astype(np.int64).tolist()
    columns.repeats = np.where(leaf, weight - drawn, 0).astype(np.int64).tolist()
    columns.missing = nodes["missing_go_to_left"].astype(int).tolist()
    node = 0
    for size in sizes:
        last, waiting = node + size, [(-1, 0)]
        while waiting:
            parent, depth = waiting.pop()
            if node >= last:
                return None
            if parent >= 0 and parent != node - 1:
                columns.right[parent] = node
            columns.depth[node] = depth
            if not columns.leaf[node]:
                waiting += [(node, depth + 1)] * 2
            node += 1
        if node != last:
            return None
    for place in range(node - 1, -1, -1):
        columns.end[place] = place + 1 if columns.leaf[place] else columns.end[columns.right[place]]
    return columns


def _thresholds(nodes: npt.NDArray[np.void], columns: Columns) -> tuple[list[Places], list[Integers]]:
    """The thresholds of each feature and how often each occurs; fills the columns of both."""
    leaf = np.array(columns.leaf, np.bool_)
    feature = np.where(leaf, -1, nodes["feature"])
    place = np.zeros(len(nodes), np.int64)
    bits = ordered(nodes["threshold"])
    thresholds, times = [], []
    order = np.argsort(feature, kind="stable")
    bounds = np.searchsorted(feature[order], np.arange(max(int(feature.max()), -1) + 2))
    for first, last in pairwise(bounds.tolist()):
        found, place[order[first:last]], counts = np.unique(
            bits[order[first:last]], return_inverse=True, return_counts=True
        )
        thresholds.append(found)
        times.append(counts)
    columns.feature, columns.place = np.maximum(feature, 0).tolist(), place.tolist()
    return thresholds, times


def _same(nodes: npt.NDArray[np.void], found: npt.NDArray[np.void]) -> bool:
    fields = [name for name in nodes.dtype.names or () if name != "impurity"]
    return all(nodes[name].tobytes() == found[name].tobytes() for name in fields)


def _whole(
    nodes: npt.NDArray[np.void], values: Floats, columns: Columns, shape: Shape, leaves: Leaves
) -> list[int] | None:
    """Fills ``columns.held`` with whole numbers; returns the whole means, None if numbers are too large."""
    weight = shape.weight.astype(np.float64)[:, None]
    totals = np.rint(values * weight)
    if leaves is Leaves.COUNTS:
        if not 2 <= values.shape[1] <= _MOST_CLASSES or (totals < 0).any() or (totals.sum(1) != weight[:, 0]).any():
            return None
        columns.held = totals.astype(np.int64).tolist()
        return []
    squares = np.rint((nodes["impurity"] + values[:, 0] * values[:, 0]) * weight[:, 0])
    if values.shape[1] != 1 or not (np.abs(totals) < _EXACT).all() or not (np.abs(squares) < _EXACT).all():
        return None
    both = np.column_stack([totals[:, 0], squares]).astype(np.int64)
    least = [
        -(-total * total // count) for total, count in zip(both[:, 0].tolist(), shape.weight.tolist(), strict=True)
    ]
    both[:, 1] = np.maximum(both[:, 1], least)
    columns.held = both.tolist()
    means = (both[:, 0] // shape.weight)[shape.leaf & (both[:, 0] % shape.weight == 0)]
    whole: list[int] = np.unique(means).tolist()
    return whole


def _floats(
    nodes: npt.NDArray[np.void], values: Floats, columns: Columns, shape: Shape
) -> tuple[list[int], Places | None]:
    """Fills ``columns.held`` with places in the table of the leaves' values; returns it and the residues."""
    bits = ordered(values)
    table, places = np.unique(bits[shape.leaf], return_inverse=True)
    held: Integers = np.zeros(values.shape, np.int64)
    held[shape.leaf] = places.reshape(-1, values.shape[1])
    columns.held = held.tolist()
    figures = np.concatenate([values, nodes["impurity"][:, None]], axis=1)
    guess = figures.copy()
    guess[shape.leaf, -1] = 0.0
    inner = np.flatnonzero(~shape.leaf)
    with np.errstate(all="ignore"):
        guess[inner] = expected(inner, shape, figures)
    residues = ordered(figures) - ordered(guess)
    return table.tolist(), residues if residues.any() else None
