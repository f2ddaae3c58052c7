"""The sensitivities of a model's weights: what is known of them, and the rest measured."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Self

from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.weights import CompressibleModel, Floats, Weight
from workers.compression.sensitivity.measuring import measure, watches_activations, with_inputs
from workers.compression.sensitivity.notes import Notes
from workers.compression.sensitivity.yardstick import Effect, Yardstick
from workers.compression.specs.sensitivity import Measurement, SensitivityMap, SensitivityOptions, WeightSensitivity

ANALYZE = "analyze"
_ON_THE_UPLOADED = frozenset({ANALYZE, "recipe/0"})
"""Where the model still is what was uploaded; later steps of a recipe work on something else."""

Wanted = Mapping[str, tuple[int, ...]]


class Survey:
    """Measures on ``dataset`` what quantization of ``weights`` does to a model's outputs; to be entered.

    Args:
        model: The same before and after.
        weights: Those to look at, in graph order.
        options: How they are quantized, and on how many rows outputs are compared.
        dataset: The rows.
        context: Knows what was measured before.
    """

    def __init__(
        self,
        model: CompressibleModel,
        weights: Sequence[Weight],
        options: SensitivityOptions,
        dataset: Dataset,
        context: Context,
    ) -> None:
        self._model = model
        self._weights = weights
        self._options = options
        self._dataset = dataset
        self._context = context

    def __enter__(self) -> Self:
        self._model.threads(self._context.threads)
        return self

    def __exit__(self, *_: object) -> None:
        self._model.threads(self._context.target.threads)

    @cached_property
    def yardstick(self) -> Yardstick:
        """The rows, and what the unchanged model makes of them."""
        model, rows = self._model, self._options.sensitivity_samples
        with model.varied(()) as run:
            return Yardstick(run, model.inputs, model.tokenizer_file(), self._dataset, rows)

    def together(self, matrices: Iterable[tuple[Weight, Floats]]) -> Effect:
        """What other values in several weights at once do."""
        yardstick = self.yardstick
        with self._model.varied(matrices) as run:
            return yardstick.effect(run)

    def sensitivities(self, wanted: Wanted) -> SensitivityMap:
        """What each weight does alone at each number of bits that is wanted of it, by its name.

        What earlier jobs measured is taken over, and the whole is noted in the context to be kept.
        """
        measured, notes = self._measurement(), Notes(self._context)
        known = _together(self._context.sensitivities.find(measured), notes.known(measured))
        missing = _missing(known, wanted)
        if known is not None:
            self._tell(known, missing)
        made = known or SensitivityMap(measured=measured, rows=self.yardstick.rows, loss=self.yardstick.loss)
        for found in self._measure(missing) if missing else ():
            made = made.merged(made.model_copy(update={"weights": (found,)}))
            notes.note(made, finished=False)
        if missing:
            notes.note(made, finished=True)
        made = made.model_copy(update={"weights": self._in_order(made.weights)})
        self._context.sensitivities.keep(made)
        return made

    def _measurement(self) -> Measurement:
        options, known = self._options, self._context.sensitivities
        kept = self._context.step in _ON_THE_UPLOADED
        return Measurement(
            model=known.model if kept else None,
            data=known.data if kept else None,
            synthetic=self._dataset.synthetic,
            rows=options.sensitivity_samples,
            algorithm=options.algorithm,
            scheme=options.scheme,
            group_size=options.group_size,
            samples=options.samples if watches_activations(options) else 0,
        )

    def _tell(self, known: SensitivityMap, missing: Wanted) -> None:
        reused = len({weight.name for weight in self._weights} & {weight.name for weight in known.weights})
        left = f"; {len(missing)} weights have to be measured further" if missing else ""
        self._context.log(f"sensitivity of {reused} weights reused{left}")

    def _measure(self, missing: Wanted) -> Iterator[WeightSensitivity]:
        model, context = self._model, self._context
        weights = [weight for weight in self._weights if weight.name in missing]
        found = with_inputs(model, weights, self._dataset, self._options, context.threads)
        return measure(model, missing, found, self._options, self.yardstick, context)

    def _in_order(self, found: Iterable[WeightSensitivity]) -> tuple[WeightSensitivity, ...]:
        """The weights looked at in graph order, then what is known of others."""
        by_name = {weight.name: weight for weight in found}
        first = tuple(by_name.pop(weight.name) for weight in self._weights if weight.name in by_name)
        return (*first, *by_name.values())


def _together(first: SensitivityMap | None, second: SensitivityMap | None) -> SensitivityMap | None:
    return first.merged(second) if first is not None and second is not None else first or second


def _missing(known: SensitivityMap | None, wanted: Wanted) -> dict[str, tuple[int, ...]]:
    """What of ``wanted`` has not been measured, by the weight's name."""
    measured = {weight.name: {option.bits for option in weight.options} for weight in known.weights} if known else {}
    left = {
        name: tuple(sorted(bits for bits in set(numbers) if bits not in measured.get(name, ())))
        for name, numbers in wanted.items()
    }
    return {name: numbers for name, numbers in left.items() if numbers}
