"""Decides per layer, on calibration rows, whether smoothing and adaptive rounding pay, and how much rounding costs."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from workers.compression.families.onnx.walking import Value, array
from workers.compression.techniques.quantize.integer_layers.bias_correction import mean_shift
from workers.compression.techniques.quantize.integer_layers.budget import sqnr_db
from workers.compression.techniques.quantize.integer_layers.calibration import Activation
from workers.compression.techniques.quantize.integer_layers.errors import LayerRunner, round_activation
from workers.compression.techniques.quantize.integer_layers.plan import Candidate, Choice
from workers.compression.techniques.quantize.integer_layers.rounding import RoundedWeight, adaptive, nearest
from workers.compression.techniques.quantize.integer_layers.smoothing import QUANTILES, smoothing_factors
from workers.compression.techniques.quantize.targets import WeightKind

Floats = npt.NDArray[np.float32]

SMOOTHING_GAIN_DB = 1.0
"""Dividing by the factors costs an operator at run time; less gain than this does not pay for it."""


@dataclass(frozen=True, eq=False)
class Judged:
    """A choice and how well its layer keeps its output on the sample."""

    choice: Choice
    sqnr_db: float

    @property
    def weight(self) -> str:
        """Name of the layer's weight."""
        return self.choice.candidate.weight.value.name


@dataclass(frozen=True)
class Judge:
    """Tries layers one at a time.

    Args:
        activations: What calibration found, by name.
        kind: Of the weights' integers.
        granularity: ``channel`` or ``tensor``.
        opset: Of the model's standard operators.
        is_adaptive: Whether rounding may follow the inputs' products.
        corrects_bias: Whether the mean error of an output may go into the layer's bias.
    """

    activations: dict[str, Activation]
    kind: WeightKind
    granularity: str
    opset: int
    is_adaptive: bool = True
    corrects_bias: bool = True

    def judge(self, found: list[Candidate]) -> list[Judged]:
        """All candidates with a sample, in the same order; layers that read one value share its smoothing."""
        produced = {candidate.leaving for candidate in found if candidate.leaving is not None}
        groups: dict[Value, list[Candidate]] = {}
        for candidate in found:
            if self.activations[candidate.entering.name].sample is not None:
                groups.setdefault(candidate.entering, []).append(candidate)
        judged: dict[Candidate, Judged] = {}
        for entering, group in groups.items():
            smoothable = entering not in produced and not any(candidate.convolution for candidate in group)
            judged.update(zip(group, self._judge_group(entering, group, smoothable=smoothable), strict=True))
        return [judged[candidate] for candidate in found if candidate in judged]

    def refine(self, judged: Judged) -> Judged:
        """With adaptive rounding and a corrected bias, each where held-out rows are the better for it."""
        return _Trial(self, judged.choice.candidate).refined(judged)

    def _judge_group(self, entering: Value, group: list[Candidate], *, smoothable: bool) -> list[Judged]:
        trials = [_Trial(self, candidate) for candidate in group]
        plain = [trial.judged(None, trial.nearest(None)) for trial in trials]
        activation = self.activations[entering.name]
        best = plain
        if smoothable and activation.lows is not None and activation.highs is not None:
            channels = np.maximum(np.abs(activation.lows), np.abs(activation.highs))
            quality = _mean_db(plain) + SMOOTHING_GAIN_DB
            for quantile in QUANTILES:
                tried = smoothing_factors(channels, quantile)
                smoothed = [trial.judged(tried, trial.nearest(tried)) for trial in trials]
                if _mean_db(smoothed) > quality:
                    best, quality = smoothed, _mean_db(smoothed)
        return best


class _Trial:
    """One layer on its sample."""

    def __init__(self, judge: Judge, candidate: Candidate) -> None:
        self._judge = judge
        self._candidate = candidate
        self._activation = judge.activations[candidate.entering.name]
        sample = self._activation.sample
        if sample is None:
            raise ValueError(candidate.entering.name)
        self._sample = sample
        self._weights = array(candidate.weight.tensor).astype(np.float32)
        self._layer = LayerRunner(candidate.place.node, judge.opset)
        self._exact = self._layer(sample, self._weights)

    def nearest(self, factors: Floats | None) -> RoundedWeight:
        """The weight, times the factors, rounded to nearest."""
        return nearest(self._scaled(factors), self._judge.kind, self._candidate.channel_axis, self._judge.granularity)

    def judged(self, factors: Floats | None, weight: RoundedWeight) -> Judged:
        """How well the layer keeps its output."""
        limits = self._activation.range(factors)
        leaving = None
        if self._candidate.leaving is not None:
            leaving = self._judge.activations[self._candidate.leaving.name].range()
        choice = Choice(self._candidate, limits, leaving, weight, factors)
        return Judged(choice, sqnr_db(self._exact, self._output(choice)))

    def refined(self, found: Judged) -> Judged:
        """See ``Judge.refine``."""
        gram, factors = self._activation.gram, found.choice.factors
        if self._judge.is_adaptive and gram is not None and self._judge.granularity == "channel":
            if factors is not None:
                gram = gram / np.outer(factors, factors)
            weight = adaptive(self._scaled(factors), self._judge.kind, self._candidate.channel_axis, gram)
            trial = self.judged(factors, weight) if weight is not None else found
            found = max(found, trial, key=lambda judged: judged.sqnr_db)
        if not self._judge.corrects_bias or not self._candidate.can_shift:
            return found
        shift = mean_shift(self._exact, self._output(found.choice), self._channels)
        return found if shift is None else Judged(replace(found.choice, shift=shift), found.sqnr_db)

    @property
    def _channels(self) -> int:
        """Axis of the output that runs along its channels."""
        return 1 if self._candidate.convolution else self._exact.ndim - 1

    def _output(self, choice: Choice) -> Floats:
        sample = self._sample if choice.factors is None else self._sample / choice.factors
        return self._layer(round_activation(sample, choice.entering), choice.weight.restored())

    def _scaled(self, factors: Floats | None) -> Floats:
        if factors is None:
            return self._weights
        return self._weights * (factors if self._candidate.input_axis == 1 else factors[:, None])


def _mean_db(group: list[Judged]) -> float:
    return float(np.mean([judged.sqnr_db for judged in group]))
