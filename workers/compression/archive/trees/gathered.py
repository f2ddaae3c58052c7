"""A forest taken apart into numbers, and the order in which they are coded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from workers.compression.archive.trees.columns import Columns, Integers, Leaves, Places
from workers.compression.archive.trees.thresholds import thresholds as thresholds_of
from workers.compression.archive.trees.walk import Alphabet, Walk
from workers.compression.coding.byte_stream import broken
from workers.compression.coding.range_coder import RangeCoder

_NODE_BYTES, _VALUE_BYTES = 64, 8
_MAX_FEATURES = 1_000_000
_MAX_SHIFT = 63
_HIGHEST = (1 << 64) - 1
_SIGN = np.uint64(63)


@dataclass(frozen=True)
class Gathered:
    """Trees as columns, and what their numbers mean.

    Attributes:
        columns: Of all nodes.
        leaves: What the columns have of a leaf.
        outputs: Values per node.
        thresholds: Of each feature, rising, as ``ordered`` numbers.
        times: How often each occurs.
        table: Values that leaves have, rising: ``ordered`` floats, or whole numbers.
        residues: [n, some] steps from the figures that the columns say to the real ones; None if there are none.
    """

    columns: Columns
    leaves: Leaves
    outputs: int
    thresholds: list[Places]
    times: list[Integers]
    table: list[int]
    residues: Places | None


def coded(coder: RangeCoder, trees: int, size: int, known: Gathered | None = None) -> Gathered:
    """Writes what is known, or reads it.

    Args:
        coder: Writes or reads.
        trees: How many there are.
        size: Bytes of the file, which bound what is allocated.
        known: None to read.

    Raises:
        InvalidModel: What is read is impossible.
    """
    columns = known.columns if known else None
    nodes = coder.number("nodes", len(columns.leaf) if columns else 0)
    outputs = coder.number("outputs", known.outputs if known else 0)
    if outputs < 1 or nodes * (_NODE_BYTES + _VALUE_BYTES * outputs) > size:
        raise broken("Trees have more nodes than their file has room for")
    leaves = coder.symbol("leaves", 2, known.leaves if known else 0)
    if leaves not in set(Leaves):
        raise broken("Leaves are stored in an unknown way")
    thresholds, times = _thresholds(coder, nodes, known)
    table = _table(coder, nodes * outputs, known.table if known else [])
    columns = columns or Columns.empty(nodes)
    cumulative = [[0, *accumulate(counts.tolist())] for counts in times]
    Walk(coder, Alphabet(cumulative, Leaves(leaves), outputs, table), columns).trees(trees)
    _missing(coder, columns)
    width = 1 + outputs * (leaves == Leaves.FLOATS)
    residues = _residues(coder, columns.leaf, width, known.residues if known else None)
    return Gathered(columns, Leaves(leaves), outputs, thresholds, times, table, residues)


def _thresholds(coder: RangeCoder, nodes: int, known: Gathered | None) -> tuple[list[Places], list[Integers]]:
    """Per feature its thresholds and how often each occurs."""
    thresholds, times, left = [], [], nodes
    count = coder.number("features", len(known.thresholds) if known else 0)
    if count > _MAX_FEATURES:
        raise broken("Trees have too many features")
    for feature in range(count):
        found = thresholds_of(coder, left, known.thresholds[feature] if known else np.zeros(0, np.uint64))
        often = [
            1 + coder.number("times", times_known - 1)
            for times_known in (known.times[feature].tolist() if known else [0] * len(found))
        ]
        left -= sum(often)
        if left < 0:
            raise broken("Thresholds occur more often than there are nodes")
        thresholds.append(found)
        times.append(np.array(often, np.int64))
    return thresholds, times


def _rising(coder: RangeCoder, most: int, known: Sequence[int]) -> list[int]:
    """Different numbers below 2**64 in rising order, without the low bits that are 0 in all of them."""
    count = coder.number("listed", len(known))
    if count > most:
        raise broken("Leaves have more values than there are")
    if not count:
        return []
    merged = 0
    for value in known:
        merged |= value
    shift = coder.symbol("shift", 6, min((merged & -merged).bit_length() - 1, _MAX_SHIFT) if merged else 0)
    found, before = [coder.number("lowest", known[0] >> shift if known else 0)], 0
    for place in range(1, count):
        step = coder.number(("further", before), (known[place] - known[place - 1] >> shift) - 1 if known else 0)
        before = step.bit_length()
        found.append(found[-1] + step + 1)
    if found[-1] << shift > _HIGHEST:
        raise broken("A value is out of its range")
    return [value << shift for value in found]


def _table(coder: RangeCoder, most: int, known: Sequence[int]) -> list[int]:
    """The values of leaves, shifted so that the lowest possible whole number is 0."""
    least = 1 << 63
    moved = coder.bit("signed", int(bool(known) and known[0] < 0))
    base = least if moved else 0
    return [value - base for value in _rising(coder, most, [value + base for value in known])]


def _missing(coder: RangeCoder, columns: Columns) -> None:
    """Which way rows without the feature go: as a rule, to where more rows went."""
    samples = [weight - repeats for weight, repeats in zip(columns.weight, columns.repeats, strict=True)]
    before = [0, *accumulate(samples)]
    for node, leaf in enumerate(columns.leaf):
        likely = 2
        if not leaf:
            middle = columns.right[node]
            likely = int(2 * before[middle] > before[node + 1] + before[columns.end[node]])
        columns.missing[node] = coder.bit(("missing", likely), columns.missing[node])


def _residues(coder: RangeCoder, leaf: Sequence[int], width: int, known: Places | None) -> Places | None:
    """Steps up and down as numbers from 0 on, by column and whether the node is a leaf."""
    if not coder.bit("residues", int(known is not None)):
        return None
    steps = _unfolded(known) if known is not None else iter([0] * (len(leaf) * width))
    found = [
        coder.number(("residue", min(column, 1) + 2 * (column == width - 1), kind), next(steps))
        for kind in leaf
        for column in range(width)
    ]
    folded = np.array(found, np.uint64).reshape(len(leaf), width)
    return folded >> np.uint64(1) ^ -(folded & np.uint64(1))


def _unfolded(steps: Places) -> Iterator[int]:
    """0, -1, 1, -2, ... modulo 2**64 as 0, 1, 2, 3, ..."""
    return iter((steps << np.uint64(1) ^ -(steps >> _SIGN)).reshape(-1).tolist())
