"""How a weight is cut into blocks that share their quantization parameters.

One convention for all granularities, as torchao has it: a block length per axis. One block as large as the tensor is
"per tensor"; length one along the output channels and full length elsewhere is "per channel"; a few values along the
inputs is "per group"; a square is "per block". Parameters have the weight's rank, one element per block.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

Scalar = TypeVar("Scalar", bound=np.generic)
Granularity = Literal["tensor", "channel", "group", "block"]


@dataclass(frozen=True)
class Blocks:
    """A shape and its blocks; the last block of an axis may be shorter than the others.

    Args:
        shape: Of the weight; no axis of length zero.
        lengths: Block length along each axis, at least one.
    """

    shape: tuple[int, ...]
    lengths: tuple[int, ...]

    @classmethod
    def of_matrix(cls, shape: tuple[int, int], granularity: Granularity, group_size: int = 32) -> "Blocks":
        """Blocks of a matrix (outputs, inputs); a group or square longer than the matrix ends where that ends."""
        rows, columns = shape
        group = min(group_size, columns)
        lengths = {
            "tensor": (rows, columns),
            "channel": (1, columns),
            "group": (1, group),
            "block": (min(group_size, rows), group),
        }
        return cls(shape, lengths[granularity])

    @classmethod
    def spanning(cls, shape: tuple[int, ...], axes: tuple[int, ...] | None) -> "Blocks":
        """Blocks that span ``axes`` whole and are one long along all others; None spans everything."""
        spanned = range(len(shape)) if axes is None else {axis % len(shape) for axis in axes}
        return cls(shape, tuple(length if axis in spanned else 1 for axis, length in enumerate(shape)))

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Blocks along each axis: the shape of the parameters."""
        return tuple(-(-size // length) for size, length in zip(self.shape, self.lengths, strict=True))

    @cached_property
    def _inner(self) -> tuple[int, ...]:
        return tuple(range(1, 2 * len(self.shape), 2))

    def split(self, values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """``values`` with each axis as (blocks, length); what a shorter last block lacks repeats its last element."""
        missing = [
            count * length - size for size, count, length in zip(self.shape, self.counts, self.lengths, strict=True)
        ]
        if any(missing):
            values = np.pad(values, [(0, lacking) for lacking in missing], mode="edge")
        pairs = zip(self.counts, self.lengths, strict=True)
        return values.reshape([size for pair in pairs for size in pair])

    def joined(self, split: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """What ``split`` came from, without the repeated elements."""
        whole = [count * length for count, length in zip(self.counts, self.lengths, strict=True)]
        return split.reshape(whole)[tuple(slice(size) for size in self.shape)]

    def reduced(self, values: npt.NDArray[Scalar], reduce: np.ufunc) -> npt.NDArray[Scalar]:
        """One element per block: ``np.minimum`` or ``np.maximum`` over it."""
        return np.asarray(reduce.reduce(self.split(values), axis=self._inner))

    def beside(self, parameters: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """``parameters`` in a shape that broadcasts against ``split(values)``."""
        return parameters.reshape([size for count in self.counts for size in (count, 1)])

    def spread(self, parameters: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """``parameters`` repeated to the weight's shape."""
        pairs = zip(self.counts, self.lengths, strict=True)
        whole = np.broadcast_to(self.beside(parameters), [size for pair in pairs for size in pair])
        return self.joined(whole)
