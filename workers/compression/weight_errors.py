"""How far two versions of a weight are apart, in one pass over both and little memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from workers.compression import scores
from workers.compression.families.model import StoredLayer, WeightPieces

Values = npt.NDArray[Any]

_PIECE = 1 << 18
# Squares outside of this range lose digits in float32.
_SMALLEST, _LARGEST = 1e-24, 1e30


@dataclass
class WeightErrors:
    """Sums over the elements of two versions of a weight, and how many of the second are not zero."""

    signal: float = 0.0
    noise: float = 0.0
    nonzero: int = 0

    @classmethod
    def between(cls, old: StoredLayer, new: StoredLayer) -> Self | None:
        """Of two versions of a layer; None where they cannot be compared element by element."""
        if old.weights is None or new.weights is None or old.weights.shape != new.weights.shape:
            return None
        found = cls()
        for first, second in _side_by_side(pieces(old.weights), pieces(new.weights)):
            found.add(first, second)
        return found

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise ratio."""
        return scores.sqnr_db(self.signal, self.noise)

    def add(self, old: Values, new: Values) -> None:
        """Takes some more elements."""
        error = new - old
        self.signal, self.noise = self.signal + _product(old, old), self.noise + _product(error, error)
        self.nonzero += int(np.count_nonzero(new != 0))


@dataclass
class WeightFidelity(WeightErrors):
    """The same with what tells directions apart, and the largest error."""

    other: float = 0.0
    product: float = 0.0
    largest: float = 0.0

    @property
    def cosine(self) -> float:
        """Of the angle between both versions; two that are all zero are the same."""
        norms = float(np.sqrt(self.signal) * np.sqrt(self.other))
        return min(1.0, self.product / norms) if norms > 0 else float(self.noise == 0.0)

    def add(self, old: Values, new: Values) -> None:
        """Takes some more elements."""
        super().add(old, new)
        self.other, self.product = self.other + _product(new, new), self.product + _product(old, new)
        self.largest = max(self.largest, float(np.abs(new - old).max(initial=0.0)))


def count_nonzero(layer: StoredLayer) -> int:
    """Parameters of a layer that are not zero."""
    if layer.nonzero is not None:
        return layer.nonzero
    return 0 if layer.weights is None else sum(int(np.count_nonzero(piece != 0)) for piece in pieces(layer.weights))


def pieces(weights: Values | WeightPieces) -> Iterator[Values]:
    """Values flat in C order, some at a time; each piece is good until the next one is asked for."""
    if isinstance(weights, WeightPieces):
        yield from weights.read()
        return
    flat = weights.reshape(-1)
    for start in range(0, len(flat), _PIECE):
        yield flat[start : start + _PIECE]


def _product(left: Values, right: Values) -> float:
    """The inner product, in float32 where that loses nothing: a piece is short, and sums of pieces are float64.

    Not by BLAS, whose threads would wait for each other after every piece.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        found = float(np.sum(left * right))
    if _SMALLEST < abs(found) < _LARGEST or not left.any():
        return found
    return float(np.sum(left.astype(np.float64) * right))


def _side_by_side(first: Iterator[Values], second: Iterator[Values]) -> Iterator[tuple[Values, Values]]:
    """Pieces of equal length from two sequences that are cut differently."""
    left = right = np.empty(0, np.float32)
    while True:
        left = left if len(left) else next(first, left)
        right = right if len(right) else next(second, right)
        count = min(len(left), len(right))
        if not count:
            return
        yield left[:count], right[:count]
        left, right = left[count:], right[count:]
