"""What a method of pruning knows of a weight: how much its elements matter, and what is left of it at a sparsity."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Protocol

import numpy as np

from workers.compression.families.weights import Weight
from workers.compression.pruning.masks import Floats, Mask, mask
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


class ByScore(Criterion, ABC):
    """Takes what scores least; which values a weight has may change between two questions."""

    by_output: ClassVar[bool] = False
    """Whether outputs lose equally many, because their scores cannot be compared."""

    @abstractmethod
    def scores(self, matrix: Floats) -> Floats:
        """How much each element matters; none that is zero matters."""

    def stays(self, matrix: Floats, sparsity: float, pattern: Pattern) -> Mask:
        """Which elements are left."""
        return mask(self.scores(matrix), sparsity, pattern, by_row=self.by_output)

    def pruned(self, matrix: Floats, sparsity: float, pattern: Pattern) -> Floats:
        """What stays is as it was."""
        return np.where(self.stays(matrix, sparsity, pattern), matrix, np.float32(0))


ScoringJudge = Callable[[Sequence[Weight]], Iterator[tuple[Weight, ByScore]]]


class Magnitude(ByScore):
    """The absolute value: needs no data."""

    def scores(self, matrix: Floats) -> Floats:
        """|w|."""
        return np.abs(matrix)


def magnitudes(weights: Sequence[Weight]) -> Iterator[tuple[Weight, ByScore]]:
    """Judges every weight by its absolute values."""
    return ((weight, Magnitude()) for weight in weights)
