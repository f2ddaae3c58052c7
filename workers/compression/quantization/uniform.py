"""Uniform quantization: integers at equal distances, and the one place that knows its conventions.

Three schemes, each over ``bits`` from 2 to 8; rounding is to nearest, ties to even, as ONNX and torch round.

``affine``
    ``value = (integer - zero) * scale``, integers 0..2^b-1. The range is widened to contain zero and the zero point is
    an integer, so that zero stays exactly zero; what onnxruntime, torch and compressed-tensors compute with.
``symmetric``
    ``value = integer * scale``. On a *narrow* grid integers run over -top..top and ``scale = amax / top``, as
    onnxruntime has it; on the full grid over -2^(b-1)..2^(b-1)-1 and ``scale = amax / (2^b-1) * 2``, as torch and
    compressed-tensors have it.
``minmax``
    ``value = integer * scale + offset`` with ``offset = min``: the textbook's ``round((x-min)/(max-min)*(2^b-1))``.
    Zero is not exact, a constant is: it is all offset.

Seven bits on the narrow grid keep products of 8-bit activations and weights from saturating the 16-bit sums of
``vpmaddubsw`` on x86 without VNNI.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from workers.compression.quantization.blocks import Blocks

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.integer[Any]]
Scheme = Literal["affine", "symmetric", "minmax"]

_SMALLEST_SCALE = np.float32(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Grid:
    """Which integers stand for values.

    Args:
        signed: int8 around a zero point of 0, or uint8.
        bits: 2 to 8.
        narrow: Whether a signed grid leaves its most negative integer out.
    """

    signed: bool
    bits: int = 8
    narrow: bool = True

    @classmethod
    def of(cls, scheme: Scheme, bits: int) -> "Grid":
        """The grid that weights are stored on where no kernel multiplies them as integers."""
        return cls(signed=scheme == "symmetric", bits=bits, narrow=False)

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        if not self.signed:
            return 0, (1 << self.bits) - 1
        top = (1 << (self.bits - 1)) - 1
        return (-top if self.narrow else -top - 1), top

    @property
    def dtype(self) -> type[np.int8] | type[np.uint8]:
        """The type that holds one integer."""
        return np.int8 if self.signed else np.uint8


@dataclass(frozen=True, eq=False)
class Parameters:
    """What integers are to be read with, one element per block.

    Args:
        scale: Positive.
        zero: Integer that stands for zero; None where that is 0.
        offset: Value that the integer 0 stands for, of the scheme ``minmax``; excludes ``zero``.
    """

    scale: Floats
    zero: Integers | None = None
    offset: Floats | None = None


@dataclass(frozen=True, eq=False)
class UniformWeight:
    """A weight as integers.

    Args:
        integers: The weight's shape, one integer per element whatever ``grid.bits``.
        parameters: Shape ``blocks.counts``.
        grid: Which integers there may be.
        blocks: Which of them share parameters.
    """

    integers: Integers
    parameters: Parameters
    grid: Grid
    blocks: Blocks

    @property
    def zeros(self) -> Integers:
        """Zero points, also where they are all 0."""
        known = self.parameters.zero
        return np.zeros(self.blocks.counts, self.grid.dtype) if known is None else known

    def signed(self) -> "UniformWeight":
        """The same values with integers and zero points as int8, as compressed-tensors and torch store them."""
        return self if self.grid.signed else self._shifted(signed=True)

    def unsigned(self) -> "UniformWeight":
        """The same values with integers and zero points as uint8, as packed layouts and ``MatMulNBits`` store them."""
        return self._shifted(signed=False) if self.grid.signed else self

    def _shifted(self, *, signed: bool) -> "UniformWeight":
        """Integers and zero points moved by half the grid; what an offset stands beside moves the offset instead."""
        half = 1 << (self.grid.bits - 1)
        shift = -half if signed else half
        grid = Grid(signed=signed, bits=self.grid.bits, narrow=False)
        # Bytes wrap around, so this is exact in both directions without a wider type.
        integers = (self.integers.view(np.uint8) + np.uint8(shift % 256)).view(grid.dtype)
        known = self.parameters
        if known.offset is not None:
            offset = known.offset - np.float32(shift) * known.scale
            return UniformWeight(integers, Parameters(known.scale, offset=offset), grid, self.blocks)
        zero = (self.zeros.astype(np.int16) + shift).astype(grid.dtype)
        return UniformWeight(integers, Parameters(known.scale, zero), grid, self.blocks)

    def restored(self) -> Floats:
        """The values that the integers stand for."""
        return decode(self.integers, self.parameters, self.blocks)


def quantize(weights: Floats, grid: Grid, blocks: Blocks, scheme: Scheme | None = None) -> UniformWeight:
    """Quantizes ``weights`` over the whole range of each block.

    Args:
        weights: Finite values.
        scheme: ``symmetric`` on a signed grid, else ``affine`` where not given.
    """
    low, high = (blocks.reduced(weights, reduce).astype(np.float32) for reduce in (np.minimum, np.maximum))
    parameters = parameters_for(low, high, grid, scheme)
    return UniformWeight(encode(weights, parameters, grid, blocks), parameters, grid, blocks)


def parameters_for(low: Floats, high: Floats, grid: Grid, scheme: Scheme | None = None) -> Parameters:
    """Parameters that represent the range from ``low`` to ``high``; a range of zero length divides by nothing.

    Args:
        low: One element per block.
        high: Not below ``low``.
        scheme: As for ``quantize``.
    """
    smallest, largest = grid.limits
    steps = float(largest - smallest)
    if scheme is None:
        scheme = "symmetric" if grid.signed else "affine"
    if scheme == "symmetric":
        return Parameters(_usable(np.maximum(np.abs(low), np.abs(high)) * np.float32(2.0 / steps)))
    if scheme == "minmax":
        # A constant is all offset; a step of its own size keeps the offset exact on the signed grid too.
        span = np.where(high > low, high - low, np.abs(low))
        return Parameters(_usable(span, steps), offset=low.astype(np.float32))
    low, high = np.minimum(low, np.float32(0.0)), np.maximum(high, np.float32(0.0))
    scale = _usable(high - low, steps)
    zero = np.clip(np.rint(smallest - low / scale), smallest, largest).astype(grid.dtype)
    return Parameters(scale, zero)


def encode(weights: Floats, parameters: Parameters, grid: Grid, blocks: Blocks) -> Integers:
    """The integer nearest to each weight, as far as the grid goes."""
    split = blocks.split(weights)
    if parameters.offset is not None:
        split = split - blocks.beside(parameters.offset)
    rounded = np.rint(split / blocks.beside(parameters.scale))
    if parameters.zero is not None:
        rounded += blocks.beside(parameters.zero.astype(np.float32))
    return np.ascontiguousarray(blocks.joined(np.clip(rounded, *grid.limits).astype(grid.dtype)))


def decode(integers: Integers, parameters: Parameters, blocks: Blocks) -> Floats:
    """What integers stand for."""
    split = blocks.split(integers).astype(np.float32)
    if parameters.zero is not None:
        split -= blocks.beside(parameters.zero.astype(np.float32))
    split *= blocks.beside(parameters.scale)
    if parameters.offset is not None:
        split += blocks.beside(parameters.offset)
    return np.ascontiguousarray(blocks.joined(split), np.float32)


def channel_axes(rank: int, *channels: int) -> tuple[int, ...]:
    """All axes but ``channels``: what a block per channel spans."""
    kept = {channel % rank for channel in channels}
    return tuple(axis for axis in range(rank) if axis not in kept)


def _usable(span: Floats, steps: float = 1.0) -> Floats:
    scale = (span / np.float32(steps)).astype(np.float32)
    return np.where(scale < _SMALLEST_SCALE, np.float32(1.0), scale).astype(np.float32)
