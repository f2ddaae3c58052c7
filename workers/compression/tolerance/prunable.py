"""What a sparsity can be found for: something whose parts can be pruned, each by a share of its own."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from workers.compression.families.weights import CompressibleModel, Floats, Weight
from workers.compression.sensitivity.yardstick import Run
from workers.compression.tolerance.allotting import total_of


class Prunable(Protocol):
    """Parts by name; the search knows nothing of how they are pruned."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Number of weights of each part."""

    def pruned(self, shares: Mapping[str, float]) -> AbstractContextManager[Run]:
        """``run`` of the model with these shares of the named parts gone and the others as they are."""

    def total(self, shares: Mapping[str, float]) -> float:
        """The share of all parts together that really goes with these shares."""


class PrunableWeights:
    """Weights that are pruned one by one.

    Args:
        model: As it was before each time that a context is left.
        weights: The parts.
        pruned: The values of a weight with a share of them set to zero.
    """

    def __init__(
        self, model: CompressibleModel, weights: Sequence[Weight], pruned: Callable[[Weight, float], Floats]
    ) -> None:
        self._model = model
        self._weights = weights
        self._pruned = pruned

    @property
    def sizes(self) -> Mapping[str, int]:
        """By the weight's name."""
        return {weight.name: weight.size for weight in self._weights}

    def pruned(self, shares: Mapping[str, float]) -> AbstractContextManager[Run]:
        """The model with some weights pruned."""
        chosen = [weight for weight in self._weights if shares.get(weight.name)]
        return self._model.varied((weight, self._pruned(weight, shares[weight.name])) for weight in chosen)

    def total(self, shares: Mapping[str, float]) -> float:
        """Of all weights."""
        return total_of(shares, self.sizes)
