"""Decides per layer, on calibration rows, whether smoothing its input pays and how much rounding costs it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.compression.families.onnx.walking import Value, array
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.uniform import Grid, channel_axes, quantize
from workers.compression.techniques.quantize.integer_layers.calibration import Calibration
from workers.compression.techniques.quantize.integer_layers.errors import LayerRunner, round_activation, sqnr_db
from workers.compression.techniques.quantize.integer_layers.plan import Candidate, Choice
from workers.compression.techniques.quantize.integer_layers.smoothing import STRENGTHS, smoothing_factors

Floats = npt.NDArray[np.float32]

SMOOTHING_GAIN_DB = 1.0
"""Dividing by the factors costs an operator at run time; less gain than this does not pay for it."""


@dataclass(frozen=True, eq=False)
class Judged:
    """A choice and how well its layer keeps its output on the sample."""

    choice: Choice
    grid: Grid
    sqnr_db: float

    @property
    def weight(self) -> str:
        """Name of the layer's weight."""
        return self.choice.candidate.weight.value.name


@dataclass(frozen=True)
class Judge:
    """Tries layers one at a time.

    Args:
        grid: For weights.
        granularity: ``channel`` or ``tensor``.
        opset: Of the model's standard operators.
    """

    calibration: Calibration
    grid: Grid
    granularity: str
    opset: int

    def judge(self, found: list[Candidate]) -> list[Judged]:
        """All candidates with a sample, in the same order; layers that read one value share its smoothing."""
        produced = {candidate.leaving for candidate in found if candidate.leaving is not None}
        groups: dict[Value, list[Candidate]] = {}
        for candidate in found:
            if self.calibration.activations[candidate.entering.name].sample is not None:
                groups.setdefault(candidate.entering, []).append(candidate)
        judged: dict[Candidate, Judged] = {}
        for entering, group in groups.items():
            smoothable = entering not in produced and not any(candidate.convolution for candidate in group)
            judged.update(zip(group, self._judge_group(entering, group, smoothable=smoothable), strict=True))
        return [judged[candidate] for candidate in found if candidate in judged]

    def _judge_group(self, entering: Value, group: list[Candidate], *, smoothable: bool) -> list[Judged]:
        plain = [self._judge_layer(candidate, None) for candidate in group]
        activation = self.calibration.activations[entering.name]
        if not smoothable or activation.lows is None or activation.highs is None:
            return plain
        channels = np.maximum(np.abs(activation.lows), np.abs(activation.highs))
        matrices = [_rows_first(candidate) for candidate in group]
        best, quality = plain, _mean_db(plain) + SMOOTHING_GAIN_DB
        for strength in STRENGTHS:
            factors = smoothing_factors(channels, matrices, strength)
            smoothed = [self._judge_layer(candidate, factors) for candidate in group]
            if _mean_db(smoothed) > quality:
                best, quality = smoothed, _mean_db(smoothed)
        return best

    def _judge_layer(self, candidate: Candidate, factors: Floats | None) -> Judged:
        activation = self.calibration.activations[candidate.entering.name]
        sample, limits = activation.sample, activation.estimator.range()
        weights = array(candidate.weight.tensor).astype(np.float32)
        if sample is None:
            raise ValueError(candidate.entering.name)
        layer = LayerRunner(candidate.place.node, self.opset)
        exact = layer(sample, weights)
        if factors is not None:
            limits = activation.divided_range(factors)
            sample = sample / factors
            weights = weights * (factors if candidate.input_axis == 1 else factors[:, None])
        axes = channel_axes(weights.ndim, candidate.channel_axis) if self.granularity == "channel" else None
        rounded = layer(
            round_activation(sample, limits),
            quantize(weights, self.grid, Blocks.spanning(weights.shape, axes)).restored(),
        )
        leaving = None
        if candidate.leaving is not None:
            leaving = self.calibration.activations[candidate.leaving.name].estimator.range()
        return Judged(Choice(candidate, limits, leaving, factors), self.grid, sqnr_db(exact, rounded))


def _rows_first(candidate: Candidate) -> Floats:
    weights = array(candidate.weight.tensor).astype(np.float32)
    return weights.T if candidate.input_axis == 1 else weights


def _mean_db(group: list[Judged]) -> float:
    return float(np.mean([judged.sqnr_db for judged in group]))
