"""Rounds a layer's weight to integers, to the nearest or so that the layer's output moves least.

Rounding to nearest is not best for a layer's output (AdaRound, arXiv:2004.10568): inputs go together, so errors can
cancel. Which neighbour each weight takes is found by the second-order method of GPTQ (arXiv:2210.17323), which solves
the same problem, the squared error on calibration rows, column by column, without gradients.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.gptq import compensated
from workers.compression.quantization.range_search import half
from workers.compression.quantization.uniform import (
    Parameters,
    Scheme,
    UniformWeight,
    channel_axes,
    encode,
    parameters_for,
)
from workers.compression.quantization.weight_ranges import fitted
from workers.compression.techniques.quantize.targets import WeightKind

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class RoundedWeight:
    """A weight as integers, in the orientation in which it is stored.

    Args:
        integers: Shape of the weight.
        scale: One per output channel, or a scalar.
        zero: Zero points, shaped like ``scale``.
        axis: The weight's axis that runs along output channels.
    """

    integers: npt.NDArray[np.generic]
    scale: Floats
    zero: npt.NDArray[np.generic]
    axis: int

    @classmethod
    def of(cls, found: UniformWeight, axis: int) -> "RoundedWeight":
        """``found`` with its parameters flat."""
        shape: tuple[int, ...] = () if found.parameters.scale.size == 1 else (-1,)
        return cls(found.integers, found.parameters.scale.reshape(shape), found.zeros.reshape(shape), axis)

    def restored(self) -> Floats:
        """The values that the integers stand for."""
        shape = [1] * self.integers.ndim
        if self.scale.ndim:
            shape[self.axis] = -1
        centred = self.integers.astype(np.float32) - self.zero.astype(np.float32).reshape(shape)
        return np.asarray(centred * self.scale.reshape(shape), np.float32)


def nearest(weights: Floats, kind: WeightKind, axis: int, granularity: str) -> RoundedWeight:
    """Rounds to the nearest integers over the whole range, steps to half precision."""
    axes = channel_axes(weights.ndim, axis) if granularity == "channel" else None
    blocks = Blocks.spanning(weights.shape, axes)
    low, high = (blocks.reduced(weights, reduce) for reduce in (np.minimum, np.maximum))
    exact = parameters_for(low, high, kind.grid)
    parameters = Parameters(half(exact.scale), exact.zero)
    integers = encode(weights, parameters, kind.grid, blocks)
    return RoundedWeight.of(kind.stored(UniformWeight(integers, parameters, kind.grid, blocks)), axis)


def adaptive(weights: Floats, kind: WeightKind, axis: int, gram: Floats) -> RoundedWeight | None:
    """Rounds a matrix with a scale per output channel so that its products with the inputs of ``gram`` move least.

    Args:
        gram: Mean outer product of the inputs.

    Returns:
        None where the inputs' products are too degenerate to go by.
    """
    matrix = np.ascontiguousarray(weights if axis == 0 else weights.T)
    blocks = Blocks.spanning(matrix.shape, (1,))
    scheme: Scheme = "symmetric" if kind.grid.signed else "affine"
    parameters = fitted(matrix, kind.grid, blocks, scheme, "mse", np.diagonal(gram))
    try:
        found = compensated(matrix, parameters, kind.grid, blocks, gram)
    except np.linalg.LinAlgError:
        return None
    rounded = RoundedWeight.of(kind.stored(found), 0)
    integers = rounded.integers if axis == 0 else np.ascontiguousarray(rounded.integers.T)
    return RoundedWeight(integers, rounded.scale.reshape(-1), rounded.zero.reshape(-1), axis)
