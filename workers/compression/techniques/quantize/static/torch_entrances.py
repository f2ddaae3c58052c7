"""What enters the layers of an exported program that can compute on rounded inputs."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.torch.pt2_model import Pt2Model
from workers.compression.families.weights import Weight
from workers.compression.quantization.activation_ranges import ESTIMATORS, RangeEstimator
from workers.compression.quantization.activations import ActivationGrid
from workers.compression.quantization.uniform import Grid, parameters_for
from workers.compression.specs.errors import NumericalFailure

Floats = npt.NDArray[np.float32]

_GRID = Grid(signed=False)


@dataclass
class Entering:
    """Range and mean of one value.

    Args:
        estimator: Of its range.
        channel_axis: Where its channels are.
    """

    estimator: RangeEstimator
    channel_axis: int
    _sums: npt.NDArray[np.float64] | None = None
    _count: int = 0

    def update(self, values: Floats) -> None:
        """Takes one batch."""
        self.estimator.update(values)
        channels = np.moveaxis(values, self.channel_axis, -1).reshape(-1, values.shape[self.channel_axis])
        total = channels.sum(axis=0, dtype=np.float64)
        self._sums = total if self._sums is None else self._sums + total
        self._count += len(channels)

    @property
    def means(self) -> Floats:
        """Per channel."""
        if self._sums is None:
            return np.zeros(1, np.float32)
        return (self._sums / self._count).astype(np.float32)

    @property
    def grid(self) -> ActivationGrid:
        """The integers for its range."""
        low, high = (np.array(end, np.float32) for end in self.estimator.range())
        found = parameters_for(low, high, _GRID)
        return ActivationGrid(float(found.scale), 0 if found.zero is None else int(found.zero), _GRID.bits)


@dataclass
class Entrances:
    """Values by node name, and the one that enters the layer of each weight."""

    values: dict[str, Entering] = field(default_factory=dict)
    of_weight: dict[str, str] = field(default_factory=dict)


def watch_entrances(
    model: Pt2Model, weights: Iterable[Weight], dataset: Dataset, method: str, context: Context
) -> Entrances:
    """Runs the rows and gathers ranges and means in constant memory; weights of several entrances are left out."""
    found = Entrances()
    by_name = {weight.name: weight for weight in weights}
    observe, entries = model.watched(tuple(by_name.values()), dataset, context.target.threads)
    for name, entered in entries.items():
        if len(entered) == 1:
            source = str(entered[0].source)
            axis = 1 if by_name[name].role == "convolution" else -1
            found.of_weight[name] = source
            found.values.setdefault(source, Entering(ESTIMATORS[method](), axis))
    if not found.values:
        return found
    for _, seen in observe(list(found.values)):
        for name, batches in ((str(source), batches) for source, batches in seen.items()):
            for values in batches:
                array = np.asarray(values, np.float32)
                if not np.isfinite(array).all():
                    raise NumericalFailure(f"On the calibration rows, {name} is NaN or infinite.")
                if array.size:
                    found.values[name].update(array)
    return found
