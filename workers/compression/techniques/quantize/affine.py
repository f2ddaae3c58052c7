"""Uniform affine quantization: ``q = round(x / scale) + zero``, ties to even, zero exactly representable.

Symmetric scales follow onnxruntime, ``amax / 127`` over -127..127, so that the range is symmetric too. With seven bits
the same formulas run over -63..63 or 0..127: products of 8-bit activations and 7-bit weights cannot saturate the 16-bit
sums of ``vpmaddubsw`` on x86 without VNNI.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int8] | npt.NDArray[np.uint8]

_SMALLEST_SCALE = np.float32(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Grid:
    """Which integers stand for weights.

    Args:
        signed: int8 symmetric around a zero point of 0, or uint8 with a zero point of its own per group.
        bits: Eight, or seven where eight would saturate.
    """

    signed: bool
    bits: Literal[7, 8] = 8

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        top = (1 << (self.bits - 1)) - 1
        return (-top, top) if self.signed else (0, (1 << self.bits) - 1)


@dataclass(frozen=True)
class Quantized:
    """Integers with scales and zero points of a shape that broadcasts against them."""

    values: Integers
    scale: Floats
    zero: Integers

    def restored(self) -> Floats:
        """What the integers stand for."""
        centred = self.values.astype(np.float32) - self.zero.astype(np.float32)
        return centred * self.scale


def quantize(weights: Floats, grid: Grid, axes: tuple[int, ...] | None) -> Quantized:
    """Quantizes ``weights`` with one scale per group.

    Args:
        weights: Finite values of any shape.
        axes: The axes that a group spans; None for one group over all. Scales keep them with length one.
    """
    if grid.signed:
        return _symmetric(weights, grid, axes)
    low = np.minimum(weights.min(axis=axes, keepdims=True, initial=0.0), 0.0).astype(np.float32)
    high = np.maximum(weights.max(axis=axes, keepdims=True, initial=0.0), 0.0).astype(np.float32)
    scale, zero = affine_parameters(low, high, grid)
    values = np.clip(np.rint(weights / scale) + zero, *grid.limits).astype(np.uint8)
    return Quantized(values, scale, zero)


def affine_parameters(low: Floats, high: Floats, grid: Grid) -> tuple[Floats, npt.NDArray[np.uint8]]:
    """Scale and zero point for ranges that contain zero; a range of zero length gets a scale of one."""
    smallest, largest = grid.limits
    scale = ((high - low) / np.float32(largest - smallest)).astype(np.float32)
    scale = np.where(scale < _SMALLEST_SCALE, np.float32(1.0), scale)
    zero = np.clip(np.rint(smallest - low / scale), smallest, largest).astype(np.uint8)
    return scale, zero


def _symmetric(weights: Floats, grid: Grid, axes: tuple[int, ...] | None) -> Quantized:
    largest = grid.limits[1]
    magnitude = np.abs(weights).max(axis=axes, keepdims=True, initial=0.0)
    scale = (magnitude / np.float32(largest)).astype(np.float32)
    scale = np.where(scale < _SMALLEST_SCALE, np.float32(1.0), scale)
    values = np.clip(np.rint(weights / scale), -largest, largest).astype(np.int8)
    return Quantized(values, scale, np.zeros(scale.shape, np.int8))


def channel_axes(rank: int, *channels: int) -> tuple[int, ...]:
    """All axes but ``channels``: what a group per channel spans."""
    kept = {channel % rank for channel in channels}
    return tuple(axis for axis in range(rank) if axis not in kept)
