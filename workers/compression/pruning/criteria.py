"""What a method of pruning knows of a weight: how much its elements matter, and what is left of it at a sparsity."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from workers.compression.families.weights import Weight
from workers.compression.pruning.masks import Floats, mask
from workers.compression.specs.pruning_pattern import Pattern


class Criterion(Protocol):
    """Of one weight. What it gives depends on nothing but its arguments, so it can be asked again and again."""

    def scores(self, matrix: Floats) -> Floats:
        """How much each element matters, higher for more; zeros matter least.

        Args:
            matrix: The weight's values, shape (outputs, inputs), finite.
        """

    def pruned(self, matrix: Floats, sparsity: float, pattern: Pattern) -> Floats:
        """The values with a share of them zero; what stays may have moved to make up for what went."""


Judge = Callable[[Sequence[Weight]], Iterator[tuple[Weight, Criterion]]]
"""Gives the criterion of each weight, in any order; those that it cannot judge are left out."""


class Magnitude:
    """The absolute value: needs no data."""

    def scores(self, matrix: Floats) -> Floats:
        """|w|."""
        return np.abs(matrix)

    def pruned(self, matrix: Floats, sparsity: float, pattern: Pattern) -> Floats:
        """What is smaller goes."""
        return np.where(mask(np.abs(matrix), sparsity, pattern), matrix, np.float32(0))


class Scored:
    """Importances from elsewhere, such as gradients.

    Args:
        importances: Shape (outputs, inputs), not negative.
    """

    def __init__(self, importances: Floats) -> None:
        self._importances = importances

    def scores(self, matrix: Floats) -> Floats:
        """The importances; those of zeros are nothing."""
        return np.where(matrix != 0, self._importances, np.float32(0))

    def pruned(self, matrix: Floats, sparsity: float, pattern: Pattern) -> Floats:
        """What matters less goes."""
        return np.where(mask(self.scores(matrix), sparsity, pattern), matrix, np.float32(0))


def magnitudes(weights: Sequence[Weight]) -> Iterator[tuple[Weight, Criterion]]:
    """Judges every weight by its absolute values."""
    return ((weight, Magnitude()) for weight in weights)
