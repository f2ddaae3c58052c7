"""How a parameter is stored where that is not how it is computed with."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from workers.compression.families.weights import FloatForm, Weight, WeightForm
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.codebook import CodebookWeight
from workers.compression.quantization.uniform import Parameters, UniformWeight, decode

_FLOAT_SCALES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class Place:
    """Where the elements of a matrix (outputs, inputs) lie in the tensor that the model computes with.

    Args:
        shape: Of the tensor.
        order: Its axes in the order in which the matrix has them.
        dtype: Of the tensor.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, weight: Weight) -> "Place":
        """The place of a listed weight."""
        return cls(weight.shape, weight.order, getattr(torch, weight.dtype))

    @classmethod
    def plain(cls, rows: int, columns: int, dtype: torch.dtype) -> "Place":
        """A matrix that is computed with as it is."""
        return cls((rows, columns), (0, 1), dtype)

    @property
    def permuted(self) -> tuple[int, ...]:
        """The tensor's shape with its axes in the matrix's order."""
        return tuple(self.shape[axis] for axis in self.order)

    @property
    def axes(self) -> tuple[int, ...]:
        """The permutation that leads from ``permuted`` to ``shape``."""
        return tuple(self.order.index(axis) for axis in range(len(self.order)))

    def tensor(self, matrix: torch.Tensor) -> torch.Tensor:
        """The matrix in the tensor's shape and type."""
        return matrix.reshape(self.permuted).permute(self.axes).contiguous().to(self.dtype)


@dataclass(frozen=True, eq=False)
class IntegerWeight:
    """Uniform quantization: value = (integer - zero point) * scale + offset.

    Args:
        integers: The matrix, one byte per integer; int8, or uint8 beside offsets.
        scales: Float, one per block: shape (blocks along the rows, blocks along the columns).
        bits: Of the integers, 2 to 8.
        lengths: (rows, columns) of a block; the last one of an axis may be shorter.
        place: What the matrix is part of.
        zero_points: int8, shaped like ``scales``; None where zero is stored as 0.
        offsets: Float, shaped like ``scales``; excludes zero points.
    """

    integers: torch.Tensor
    scales: torch.Tensor
    bits: int
    lengths: tuple[int, int]
    place: Place
    zero_points: torch.Tensor | None = None
    offsets: torch.Tensor | None = None

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        rows, columns = self.integers.shape
        return rows, columns

    def computed_in(self, dtype: torch.dtype) -> "IntegerWeight":
        """The same integers for a model that computes in another type."""
        place = replace(self.place, dtype=dtype)
        return replace(self, scales=self.scales.to(_scale_type(dtype)), place=place)

    def expanded(self) -> torch.Tensor:
        """The weight as the model computes with it."""
        parameters = Parameters(
            _floats(self.scales),
            None if self.zero_points is None else self.zero_points.numpy(),
            None if self.offsets is None else _floats(self.offsets),
        )
        matrix = decode(self.integers.numpy(), parameters, Blocks(self.matrix_shape, self.lengths))
        return self.place.tensor(torch.from_numpy(matrix))


@dataclass(frozen=True, eq=False)
class CodebookStorage:
    """Codes into codebooks that blocks of whole rows share.

    Args:
        codes: uint8, the matrix.
        codebooks: Float, shape (blocks along the rows, entries).
        bits: Of the codes, 1 to 8.
        rows: Rows to a codebook; the last one may have fewer.
        place: What the matrix is part of.
        scale_codes: uint8, shape (outputs, groups): the scale of each group of inputs; None for no scales.
        scales: Float, shape (scales,), with ``scale_codes``.
    """

    codes: torch.Tensor
    codebooks: torch.Tensor
    bits: int
    rows: int
    place: Place
    scale_codes: torch.Tensor | None = None
    scales: torch.Tensor | None = None

    def expanded(self) -> torch.Tensor:
        """The weight as the model computes with it."""
        book = torch.arange(len(self.codes)) // self.rows
        matrix = self.codebooks[book[:, None], self.codes.int()]
        if self.scale_codes is not None and self.scales is not None:
            groups = matrix.reshape(*self.scale_codes.shape, -1)
            matrix = (groups * self.scales[self.scale_codes.int()].unsqueeze(2)).flatten(1)
        return self.place.tensor(matrix)


@dataclass(frozen=True, eq=False)
class ScaledFloats:
    """Narrow floats: value = number * scale.

    Args:
        numbers: float8, the matrix.
        scales: Float, shape (rows, 1) or (1, 1).
        place: What the matrix is part of.
    """

    numbers: torch.Tensor
    scales: torch.Tensor
    place: Place

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        rows, columns = self.numbers.shape
        return rows, columns

    def computed_in(self, dtype: torch.dtype) -> "ScaledFloats":
        """The same numbers for a model that computes in another type."""
        return replace(self, scales=self.scales.to(_scale_type(dtype)), place=replace(self.place, dtype=dtype))

    def expanded(self) -> torch.Tensor:
        """The weight as the model computes with it."""
        return self.place.tensor(self.numbers.float() * self.scales.float())


Quantized = IntegerWeight | CodebookStorage | ScaledFloats
Storage = Quantized | torch.dtype
"""Integers, codes or scaled floats that have to be restored, or a narrower float type."""


def storage_of(weight: Weight, form: WeightForm) -> Storage:
    """How the torch formats store ``form``.

    Scales take the weight's own type if that is narrower than float32, as the layouts of torch have it. Integers that
    were chosen with the unrounded scale stay: rounding moves a scale by at most 2^-9 of itself.
    """
    place = Place.of(weight)
    if isinstance(form, CodebookWeight):
        return _codes(form, place)
    if isinstance(form, FloatForm):
        dtype: torch.dtype = getattr(torch, form.dtype)
        if form.scale is None:
            return dtype
        scales = torch.from_numpy(np.array(form.scale, np.float32)).to(_scale_type(place.dtype))
        return ScaledFloats(torch.from_numpy(form.values).to(dtype), scales, place)
    return _integers(form, place)


def _codes(form: CodebookWeight, place: Place) -> CodebookStorage:
    codes, books = torch.from_numpy(form.codes), torch.from_numpy(form.codebooks.reshape(-1, form.codebooks.shape[-1]))
    if form.scales is None:
        return CodebookStorage(codes, books.to(_scale_type(place.dtype)), form.bits, form.blocks.lengths[0], place)
    # In float32, so that only their product is rounded to the weight's type.
    scale_codes, scales = torch.from_numpy(form.scales.codes), torch.from_numpy(form.scales.values)
    return CodebookStorage(codes, books, form.bits, form.blocks.lengths[0], place, scale_codes, scales)


def _integers(form: UniformWeight, place: Place) -> IntegerWeight:
    # An offset would not survive the shift to signed integers bit for bit.
    form = form if form.parameters.offset is not None else form.signed()
    zero, offset = form.parameters.zero, form.parameters.offset
    # Sums of products are rounded twice unless they are computed in float32.
    scale_type = _scale_type(place.dtype) if offset is None else torch.float32
    rows, columns = form.blocks.lengths
    return IntegerWeight(
        integers=torch.from_numpy(form.integers),
        scales=torch.from_numpy(form.parameters.scale).to(scale_type),
        bits=form.grid.bits,
        lengths=(rows, columns),
        place=place,
        zero_points=None if zero is None else torch.from_numpy(zero),
        offsets=None if offset is None else torch.from_numpy(offset).to(scale_type),
    )


def _scale_type(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype in _FLOAT_SCALES else torch.float32


def _floats(tensor: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(tensor.float().numpy(), np.float32)
