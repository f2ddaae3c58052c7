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
from workers.compression.quantization.activation_ranges import ESTIMATORS, RangeEstimator
from workers.compression.specs.errors import NumericalFailure

BATCH_ROWS = 8
HELD_OUT = 4
"""Every fourth batch is kept out of Gram matrices: what is decided by them is tried on rows that they do not know."""

SAMPLE_ELEMENTS = 1 << 19
_SAMPLE_PARTS = 8
_VECTORS_PER_BATCH = 256
_GRAM_BYTES = 1 << 29

Floats = npt.NDArray[np.float32]


@dataclass
class Activation:
    """Statistics of one value.

    Args:
        method: Of the range estimator.
        as_vectors: Whether its last axis is all that counts, as for matrix products: its sample is (vectors, width).
        has_gram: Whether products of its channels are summed up.
    """

    method: str
    as_vectors: bool = False
    has_gram: bool = False
    lows: Floats | None = None
    highs: Floats | None = None
    _estimator: RangeEstimator | None = None
    _gram: Floats | None = None
    _vectors: int = 0
    _first: Floats | None = None
    _parts: list[Floats] = field(default_factory=list)

    def update(self, values: Floats, *, held_out: bool) -> None:
        """Takes one batch of the value."""
        vectors = values.reshape(-1, values.shape[-1])
        if self._estimator is None:
            self._estimator = ESTIMATORS[self.method]()
            self._first = self._piece(values, SAMPLE_ELEMENTS)
            self.lows = self.highs = np.zeros(values.shape[-1], np.float32)
        self._estimator.update(values)
        self._widen(vectors)
        if held_out:
            self._keep(self._piece(values, SAMPLE_ELEMENTS // _SAMPLE_PARTS))
        elif self.has_gram:
            self._multiply(vectors)

    @property
    def sample(self) -> Floats | None:
        """A piece of the held-out batches, of the first one where there are none; None before any batch."""
        return np.concatenate(self._parts) if self._parts else self._first

    @property
    def gram(self) -> Floats | None:
        """Mean outer product of the vectors that are not held out; None where they were too few to trust."""
        if self._gram is None or self._vectors < len(self._gram):
            return None
        mean: Floats = self._gram / np.float32(self._vectors)
        return mean

    def range(self, factors: Floats | None = None) -> tuple[float, float]:
        """The estimated range; that of the value divided by ``factors``, one per channel, where they are given."""
        if self._estimator is None:
            return 0.0, 0.0
        if factors is None or self.lows is None or self.highs is None:
            return self._estimator.range()
        low, high = float((self.lows / factors).min()), float((self.highs / factors).max())
        sample = self.sample
        if self.method == "minmax" or sample is None:
            return low, high
        divided = ESTIMATORS[self.method]()
        divided.update(sample / factors)
        return divided.range()

    def _piece(self, values: Floats, elements: int) -> Floats:
        whole = values.reshape(-1, values.shape[-1]) if self.as_vectors else values
        count = max(1, elements // max(1, whole[:1].size))
        return whole[:: max(1, len(whole) // count)][:count].copy()

    def _keep(self, piece: Floats) -> None:
        fits = not self._parts or piece.shape[1:] == self._parts[0].shape[1:]
        if fits and len(self._parts) < _SAMPLE_PARTS:
            self._parts.append(piece)

    def _multiply(self, vectors: Floats) -> None:
        width = vectors.shape[1]
        if self._gram is None:
            self._gram = np.zeros((width, width), np.float32)
        if len(self._gram) == width:
            taken = vectors[:: max(1, len(vectors) // _VECTORS_PER_BATCH)]
            self._gram += taken.T @ taken
            self._vectors += len(taken)

    def _widen(self, vectors: Floats) -> None:
        if self.lows is None or self.highs is None or self.lows.shape != vectors.shape[1:]:
            self.lows = self.highs = None
            return
        self.lows = np.minimum(self.lows, vectors.min(axis=0))
        self.highs = np.maximum(self.highs, vectors.max(axis=0))


def calibrate(
    model: OnnxModel, widths: dict[str, int | None], dataset: Dataset, method: str, context: Context
) -> dict[str, Activation]:
    """Runs ``model`` over the rows and gathers what its values hold.

    Args:
        widths: Names of the values, with the length of the last axis where a matrix product reads it. Gram matrices
            are kept for as many of those as fit 512 MiB.

    Raises:
        NumericalFailure: A value is NaN or infinite.
    """
    found: dict[str, Activation] = {}
    free = _GRAM_BYTES
    for name, width in widths.items():
        needed = 4 * width**2 if width else 0
        found[name] = Activation(method, width is not None, 0 < needed <= free)
        free -= needed if needed <= free else 0
    total, rows = max(1, dataset.rows), 0
    batches = observe(model.proto, list(widths), feeds(dataset, model), context.target.threads)
    for number, values in enumerate(batches):
        for name, activation in found.items():
            array = np.asarray(values[name], np.float32)
            if not np.isfinite(array).all():
                raise NumericalFailure(f"On the calibration rows, {name[:200]} is NaN or infinite.")
            if array.size and array.ndim:
                activation.update(array, held_out=number % HELD_OUT == HELD_OUT - 1)
        rows += BATCH_ROWS
        context.progress(0.5 * min(1.0, rows / total), f"calibrated on {min(rows, total)} rows")
    return found


def feeds(dataset: Dataset, model: OnnxModel) -> Iterator[Feeds]:
    """The dataset's rows as feeds, a few rows at a time."""
    for batch in dataset.batches(model.inputs, BATCH_ROWS, model.tokenizer_file()):
        yield batch.feeds
