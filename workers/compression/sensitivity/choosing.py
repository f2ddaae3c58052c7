"""Chooses bits per weight from sensitivities, and measures what the choice really does."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.weights import CompressibleModel, Weight
from workers.compression.quantization.allocation import Allocation, Option, least_cost, least_error
from workers.compression.quantization.uniform import UniformWeight
from workers.compression.sensitivity.measuring import quantized, with_inputs
from workers.compression.sensitivity.survey import Survey
from workers.compression.specs.errors import ConstraintInfeasible
from workers.compression.specs.sensitivity import SensitivityOptions

_ROUNDS = 6
_MARGIN = 0.9
_FAR_OFF = 2.0
"""Errors that do not add up are told from this factor on between what is measured and what was predicted."""


@dataclass(frozen=True)
class Choice:
    """Bits for each weight, and the forms that they lead to.

    Args:
        allocation: In the order of the weights.
        forms: By the weight's name.
        error: Relative squared error of the outputs with all of them, as measured.
    """

    allocation: Allocation
    forms: Mapping[str, UniformWeight]
    error: float


class Chooser:
    """Finds the best options for a budget.

    Args:
        weights: Those to quantize.
        layers: The options of each.
    """

    def __init__(
        self,
        model: CompressibleModel,
        weights: Sequence[Weight],
        layers: Sequence[Sequence[Option]],
        options: SensitivityOptions,
        survey: Survey,
        dataset: Dataset,
        context: Context,
    ) -> None:
        self._model = model
        self._weights = weights
        self._layers = layers
        self._options = options
        self._survey = survey
        self._dataset = dataset
        self._context = context
        self._forms: dict[str, UniformWeight] = {}

    def within_size(self, average_bits: float) -> Choice:
        """The least sum of errors at no more than so many bits per weight, metadata counted.

        Raises:
            ConstraintInfeasible: Not even the fewest bits are so few; the detail says how many they are.
        """
        total = sum(weight.size for weight in self._weights)
        fewest = sum(min(option.cost for option in options) for options in self._layers) / total
        if fewest > average_bits:
            raise ConstraintInfeasible(
                f"The fewest bits that this step may use are {fewest:.2f} per weight, metadata counted; at most "
                f"{average_bits:g} are wanted.",
                reason="size_budget",
                hint="Allow fewer bits, larger groups, or a larger average_bits.",
            )
        choice = self._measured(least_error(self._layers, average_bits * total))
        if choice.error > _FAR_OFF * choice.allocation.error:
            self._context.warn(
                f"The outputs' relative squared error is {choice.error:.3g}; from the layers one by one "
                f"{choice.allocation.error:.3g} was predicted: in this model their errors do not simply add up."
            )
        return choice

    def within_error(self, max_error: float) -> Choice:
        """The fewest bits with which the error, as measured, is at most ``max_error``.

        The prediction is asked for less until the measurement agrees.

        Raises:
            ConstraintInfeasible: Not even the most bits reach it; the detail says what they reach.
        """
        most = tuple(min(options, key=lambda option: option.error) for options in self._layers)
        reachable, allowed = sum(option.error for option in most), max_error
        for _ in range(_ROUNDS):
            if allowed < reachable:
                break
            choice = self._measured(least_cost(self._layers, allowed))
            if choice.error <= max_error:
                return choice
            self._context.log(
                f"the measured error {choice.error:.3g} is above {max_error:.3g} (predicted "
                f"{choice.allocation.error:.3g}): the next choice has to be better"
            )
            allowed *= _MARGIN * max_error / choice.error
        choice = self._measured(Allocation(most, 1.0))
        if choice.error > max_error:
            raise ConstraintInfeasible(
                f"With the most bits that this step may use the outputs' relative squared error is "
                f"{choice.error:.3g}; at most {max_error:.3g} is wanted.",
                reason="error_budget",
                hint="Allow more bits, smaller groups, or a larger max_error, or exclude the most sensitive layers.",
            )
        return choice

    def _measured(self, allocation: Allocation) -> Choice:
        bits = {weight.name: option.bits for weight, option in zip(self._weights, allocation.chosen, strict=True)}
        changed = [
            weight
            for weight in self._weights
            if weight.name not in self._forms or self._forms[weight.name].grid.bits != bits[weight.name]
        ]
        found = with_inputs(self._model, changed, self._dataset, self._options, self._context.threads)
        for weight, inputs in found:
            self._forms[weight.name] = quantized(self._model, weight, bits[weight.name], self._options, inputs)
        effect = self._survey.together((weight, self._forms[weight.name].restored()) for weight in self._weights)
        self._context.log(
            f"relative squared error of the outputs: {effect.error:.3g} measured, {allocation.error:.3g} predicted; "
            f"gap to the optimum at most {allocation.gap:.1g}"
        )
        return Choice(allocation, dict(self._forms), effect.error)


def summary(choice: Choice, weights: Sequence[Weight]) -> str:
    """The choice in words: "bits per weight 4.48: 3 layers at 8, 20 at 4, 14 at 3"."""
    counts = Counter(option.bits for option in choice.allocation.chosen)
    average = choice.allocation.cost / sum(weight.size for weight in weights)
    parts = [f"{count} at {bits}" for bits, count in sorted(counts.items(), reverse=True)]
    word = " layer at " if parts[0].startswith("1 ") else " layers at "
    return f"bits per weight {average:.2f}: {', '.join([parts[0].replace(' at ', word), *parts[1:]])}"
