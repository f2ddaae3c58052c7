"""Criteria that go by what enters a layer on the user's rows."""

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, TypeVar

import numpy as np

from workers.compression.context import Context
from workers.compression.families.weights import CompressibleModel, LayerInputs, Weight
from workers.compression.pruning.criteria import ByScore, Criterion
from workers.compression.pruning.masks import Floats
from workers.compression.pruning.second_order import compensated, fitted
from workers.compression.quantization.rounding import is_usable
from workers.compression.specs.errors import DatasetMismatch
from workers.compression.specs.pruning_pattern import Pattern
from workers.compression.specs.steps.prune_weights import CalibratedPrune

_Chosen = TypeVar("_Chosen", bound=Criterion)


class Wanda(ByScore):
    """|w| times the norm of the column's inputs, compared within an output (Sun et al., arXiv:2306.11695).

    Args:
        inputs: Of the layer.
        fit: Whether what stays is fitted by least squares.
    """

    by_output: ClassVar[bool] = True

    def __init__(self, inputs: LayerInputs, *, fit: bool) -> None:
        self._norms = np.sqrt(np.maximum(np.diagonal(inputs.gram), 0))
        self._gram = inputs.gram if fit else None

    def scores(self, matrix: Floats) -> Floats:
        """Zero where a column never meets anything but zeros."""
        return np.abs(matrix) * self._norms

    def pruned(self, matrix: Floats, sparsity: float, pattern: Pattern) -> Floats:
        """What stays is as it was, or fitted."""
        stays = self.stays(matrix, sparsity, pattern)
        left = np.where(stays, matrix, np.float32(0))
        return left if self._gram is None else fitted(matrix, left, self._gram, stays)


class SparseGpt:
    """Second-order, with an update of the weights (Frantar and Alistarh, arXiv:2301.00774).

    Args:
        inputs: Of the layer.
        fit: Whether what stays is fitted by least squares in the end: the update of columns one by one never changes
            those that came before.
    """

    def __init__(self, inputs: LayerInputs, *, fit: bool) -> None:
        self._gram = inputs.gram
        self._fit = fit

    def scores(self, matrix: Floats) -> Floats:
        """w² times the energy of the column's inputs: what the first column of all would cost."""
        return matrix**2 * np.diagonal(self._gram)

    def pruned(self, matrix: Floats, sparsity: float, pattern: Pattern) -> Floats:
        """What goes is chosen as the update proceeds."""
        left = compensated(matrix, self._gram, sparsity, pattern)
        return fitted(matrix, left, self._gram, left != 0) if self._fit else left


def judging_inputs(
    model: CompressibleModel, context: Context, spec: CalibratedPrune, criterion: Callable[[LayerInputs], _Chosen]
) -> Callable[[Sequence[Weight]], Iterator[tuple[Weight, _Chosen]]]:
    """Watches the layers on the calibration rows; weights whose inputs cannot be watched are left out.

    Raises:
        DatasetMismatch: There are no rows.
    """
    dataset = context.any_data()
    if dataset is None:
        raise DatasetMismatch("This method looks at calibration data; none was given.")
    rows = dataset.limited(spec.samples)

    def judge(weights: Sequence[Weight]) -> Iterator[tuple[Weight, _Chosen]]:
        for done, (weight, inputs) in enumerate(model.layer_inputs(weights, rows, context.threads)):
            if is_usable(inputs):
                context.progress(done / len(weights), weight.layer)
                yield weight, criterion(inputs)

    return judge
