"""What calibration rows say about a model's activations, gathered in one pass and bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.model import Feeds
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.families.onnx.observing import observe
from workers.compression.specs.errors import NumericalFailure
from workers.compression.techniques.quantize.integer_layers.ranges import ESTIMATORS, RangeEstimator

BATCH_ROWS = 8
SAMPLE_ELEMENTS = 1 << 19

Floats = npt.NDArray[np.float32]


@dataclass
class Activation:
    """Statistics of one value.

    ``sample`` is a first piece of it, whole rows; ``lows`` and ``highs`` are the extremes per channel of the last axis,
    None where that axis has no fixed length.
    """

    estimator: RangeEstimator
    sample: Floats | None = None
    lows: Floats | None = None
    highs: Floats | None = None

    def update(self, values: Floats) -> None:
        """Takes one batch of the value."""
        self.estimator.update(values)
        if self.sample is None:
            rows = max(1, SAMPLE_ELEMENTS // max(1, values[:1].size))
            self.sample = values[:rows].copy()
            self.lows = self.highs = np.zeros(values.shape[-1], np.float32)
        self._widen(values.reshape(-1, values.shape[-1]))

    def divided_range(self, factors: Floats) -> tuple[float, float]:
        """The range of the value once its channels are divided by ``factors``."""
        if self.lows is None or self.highs is None:
            return self.estimator.range()
        return float((self.lows / factors).min()), float((self.highs / factors).max())

    def _widen(self, rows: Floats) -> None:
        if self.lows is None or self.highs is None or self.lows.shape != rows.shape[1:]:
            self.lows = self.highs = None
            return
        self.lows = np.minimum(self.lows, rows.min(axis=0))
        self.highs = np.maximum(self.highs, rows.max(axis=0))


@dataclass
class Calibration:
    """Activations by name, over ``rows`` rows."""

    activations: dict[str, Activation] = field(default_factory=dict)
    rows: int = 0


def calibrate(model: OnnxModel, names: list[str], dataset: Dataset, method: str, context: Context) -> Calibration:
    """Runs ``model`` over the rows and gathers what its values ``names`` hold.

    Raises:
        NumericalFailure: A value is NaN or infinite.
    """
    found = Calibration({name: Activation(ESTIMATORS[method]()) for name in names})
    total = max(1, dataset.rows)
    for values in observe(model.proto, names, feeds(dataset, model), context.target.threads):
        for name in names:
            array = np.asarray(values[name], np.float32)
            if not np.isfinite(array).all():
                raise NumericalFailure(f"On the calibration rows, {name[:200]} is NaN or infinite.")
            if array.size and array.ndim:
                found.activations[name].update(array)
        found.rows += BATCH_ROWS
        context.progress(0.7 * min(1.0, found.rows / total), f"calibrated on {min(found.rows, total)} rows")
    return found


def feeds(dataset: Dataset, model: OnnxModel) -> Iterator[Feeds]:
    """The dataset's rows as feeds, a few rows at a time."""
    for batch in dataset.batches(model.inputs, BATCH_ROWS, model.tokenizer_file()):
        yield batch.feeds
