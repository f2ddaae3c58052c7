"""The walk over all nodes in preorder that writes or reads their columns."""

from collections.abc import Sequence
from dataclasses import dataclass

from workers.compression.archive.trees.columns import Columns, Leaves
from workers.compression.coding.byte_stream import broken
from workers.compression.coding.range_coder import RangeCoder

_DEEP, _MANY = 24, 12
_HIGH_BITS = 4
_FEW_CLASSES = 16
_MAX_WEIGHT = 1 << 53


@dataclass(frozen=True)
class Alphabet:
    """What nodes choose from.

    Attributes:
        cumulative: Per feature how often its first thresholds occur together: [0, c0, c0 + c1, ...].
        leaves: What is stored of a leaf.
        outputs: Values per node.
        table: Values that leaves have: floats as ``ordered`` numbers, or whole numbers that are means of leaves.
    """

    cumulative: Sequence[Sequence[int]]
    leaves: Leaves
    outputs: int
    table: Sequence[int]


class Walk:
    """Writes the columns, or fills them where ``coder`` reads.

    Args:
        coder: Writes or reads.
        alphabet: Known to both sides.
        columns: Of as many nodes as there are; zeros for a reader.
    """

    def __init__(self, coder: RangeCoder, alphabet: Alphabet, columns: Columns) -> None:
        self._coder = coder
        self._alphabet = alphabet
        self._columns = columns
        self._feature_bits = (len(alphabet.cumulative) - 1).bit_length()
        self._symbol = 0
        self._places = {value: place for place, value in enumerate(alphabet.table)}

    def trees(self, count: int) -> None:
        """All trees.

        Raises:
            InvalidModel: They do not have just the nodes of the columns, or choose what there is not.
        """
        position = 0
        for _ in range(count):
            position = self._tree(position)
        if position != len(self._columns.leaf):
            raise broken("Trees have another number of nodes than stated")
        columns = self._columns
        for node in range(position - 1, -1, -1):
            columns.end[node] = node + 1 if columns.leaf[node] else columns.end[columns.right[node]]

    def _tree(self, node: int) -> int:
        """The tree whose root is ``node``; returns the node behind it."""
        columns, coder = self._columns, self._coder
        bounds: dict[int, tuple[int, int]] = {}
        # Parent, depth, and where the feature of the parent may be split in this subtree; parent -1 only restores.
        waiting: list[tuple[int, int, int, tuple[int, int]]] = [(-2, 0, -1, (0, 0))]
        while waiting:
            parent, depth, feature, bound = waiting.pop()
            bounds[feature] = bound
            if parent == -1:
                continue
            if node >= len(columns.leaf):
                raise broken("Trees have more nodes than stated")
            side = 0
            if parent >= 0 and parent != node - 1:
                columns.right[parent] = node
                side = 1 + columns.leaf[parent + 1]
            columns.depth[node] = depth
            columns.leaf[node] = coder.bit(("leaf", min(depth, _DEEP), side), columns.leaf[node])
            if columns.leaf[node]:
                self._leaf(node, side)
            else:
                chosen, first, last = self._split(node, min(depth, 2), bounds)
                place = columns.place[node]
                waiting.append((-1, 0, chosen, (first, last)))
                waiting.append((node, depth + 1, chosen, (place + 1, last)))
                waiting.append((node, depth + 1, chosen, (first, place)))
            node += 1
        return node

    def _split(self, node: int, depth: int, bounds: dict[int, tuple[int, int]]) -> tuple[int, int, int]:
        """Feature of a node and the thresholds that its ancestors leave."""
        columns, coder = self._columns, self._coder
        chosen = coder.symbol(("feature", depth), self._feature_bits, columns.feature[node])
        if chosen >= len(self._alphabet.cumulative):
            raise broken("A split reads a feature that there is not")
        cumulative = self._alphabet.cumulative[chosen]
        first, last = bounds.get(chosen, (0, len(cumulative) - 1))
        columns.feature[node] = chosen
        columns.place[node] = coder.choice(cumulative, first, last, columns.place[node])
        return chosen, first, last

    def _leaf(self, node: int, side: int) -> None:
        columns, coder = self._columns, self._coder
        weight = 1 + coder.number(("weight", side), columns.weight[node] - 1)
        repeats = coder.number(("repeats", _size(weight)), columns.repeats[node])
        if weight > _MAX_WEIGHT or repeats >= weight:
            raise broken("A leaf has an impossible number of samples")
        columns.weight[node], columns.repeats[node] = weight, repeats
        leaves = self._alphabet.leaves
        if leaves is Leaves.COUNTS:
            columns.held[node] = self._counts(weight, side, columns.held[node])
        elif leaves is Leaves.SUMS:
            columns.held[node] = self._sums(weight, columns.held[node] or [0, 0])
        else:
            known = columns.held[node] or [0] * self._alphabet.outputs
            columns.held[node] = [self._listed(place) for place in known]

    def _counts(self, weight: int, side: int, known: list[int]) -> list[int]:
        """Samples of each class: the first of the most frequent ones, then how the others share what is left."""
        coder, classes = self._coder, self._alphabet.outputs
        before = self._symbol if classes <= _FEW_CLASSES else 0
        best = coder.symbol(
            ("class", before, side), (classes - 1).bit_length(), known.index(max(known)) if known else 0
        )
        if best >= classes:
            raise broken("A leaf has a class that there is not")
        self._symbol = best
        known = known or [0] * classes
        found = [0] * classes
        left = coder.number(("others", min(weight, _MANY)), weight - known[best]) if weight > 1 else 0
        found[best] = weight - left
        for place in range(classes):
            if place != best and left:
                found[place] = coder.number(("count", min(left, _MANY)), known[place])
                left -= found[place]
        if left or found[best] < 0:
            raise broken("A leaf's classes do not add up to its samples")
        return found

    def _sums(self, weight: int, known: list[int]) -> list[int]:
        """Sum of the samples and of their squares; the mean of one sample, or of equal ones, is in the table."""
        coder = self._coder
        total, squares = known
        mean = self._places.get(total // weight, -1) if total % weight == 0 else -1
        if coder.bit(("whole", min(weight, _MANY)), int(mean >= 0)):
            total = self._alphabet.table[self._listed(max(mean, 0))] * weight
        else:
            total = signed(coder.number(("sum", weight.bit_length()), unsigned(total)))
        least = -(-total * total // weight)
        squares = least + coder.number(("squares", min(weight, _MANY)), max(squares - least, 0))
        if abs(total) > _MAX_WEIGHT or squares > _MAX_WEIGHT:
            raise broken("A leaf's sums are out of their range")
        return [total, squares]

    def _listed(self, place: int) -> int:
        """A place in the table; its first bits depend on those of the one before."""
        bits = (len(self._alphabet.table) - 1).bit_length()
        low = max(bits - _HIGH_BITS, 0)
        high = self._coder.symbol(("value", self._symbol), bits - low, place >> low)
        self._symbol = high
        found = high << low | self._coder.symbol(("low", high), low, place & ((1 << low) - 1))
        if found >= len(self._alphabet.table):
            raise broken("A leaf has a value that there is not")
        return found


def _size(weight: int) -> int:
    """Small weights, and how long greater ones are."""
    return weight if weight < _MANY else _MANY + weight.bit_length()


def unsigned(value: int) -> int:
    """0, -1, 1, -2, ... as 0, 1, 2, 3, ..."""
    return 2 * value if value >= 0 else -2 * value - 1


def signed(value: int) -> int:
    """The inverse of ``unsigned``."""
    return value >> 1 if value % 2 == 0 else -(value + 1 >> 1)
