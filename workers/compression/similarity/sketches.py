"""Short vectors that are about as far apart as the tensors they were made of.

A count sketch (Charikar, Chen and Farach-Colton, 2002) adds every value, with a random sign, to one of a few random
sums: one pass over the values, and distances come out right to about a tenth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.compression.families.model import Array

LENGTH = 256
"""Sums; the relative error of a squared distance is about ``sqrt(2 / LENGTH)``."""

_SEED = 0x5EED
_PIECE = 1 << 18

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sketch:
    """What stands for a tensor when others are sought that are like it.

    Args:
        direction: The sketch of the tensor divided by its norm, shape (``LENGTH``,).
        norm: Euclidean norm of the tensor; neither zero nor infinite.
    """

    direction: Doubles
    norm: float

    def distances(self, others: Sequence["Sketch"]) -> Doubles:
        """About the distance of the tensor to others, each relative to the shorter of the two."""
        norms = np.array([other.norm for other in others])
        directions = np.stack([other.direction for other in others])
        apart = np.linalg.norm(norms[:, None] * directions - self.norm * self.direction, axis=1)
        return np.asarray(apart / np.minimum(norms, self.norm))


def sketched(values: Array) -> Sketch | None:
    """The sketch of a tensor; None where it holds nothing but zeros, NaN or infinity.

    Args:
        values: Floats of any type and shape.
    """
    random = np.random.default_rng(_SEED)
    sums, square = np.zeros(LENGTH), 0.0
    flat = values.reshape(-1)
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE].astype(np.float64)
        drawn = random.integers(0, 2 * LENGTH, len(piece), np.uint16)
        signed = np.where(drawn & 1, piece, -piece)
        sums += np.bincount(drawn >> 1, signed, LENGTH)
        square += float(piece @ piece)
    norm = float(np.sqrt(square))
    return Sketch(sums / norm, norm) if 0.0 < norm < np.inf else None


def relative_distance(left: Array, right: Array) -> float:
    """Distance of two tensors of one shape, relative to the shorter one; infinite where that is zero."""
    ours, theirs = left.reshape(-1), right.reshape(-1)
    apart = first = second = 0.0
    for start in range(0, ours.size, _PIECE):
        a, b = (found[start : start + _PIECE].astype(np.float64) for found in (ours, theirs))
        apart += float((a - b) @ (a - b))
        first += float(a @ a)
        second += float(b @ b)
    shorter = min(first, second)
    return float(np.sqrt(apart / shorter)) if shorter > 0.0 else float("inf")
