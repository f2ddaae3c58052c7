"""Weights in few bits as plain arrays and a description, and back: what checkpoints of quantization are made of."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from workers.compression.coding.packing import pack, packed_size, unpack
from workers.compression.families.weights import FloatForm, Weight, WeightForm
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.codebook import CodebookWeight, GroupScales
from workers.compression.quantization.narrow_floats import DTYPES, FloatType
from workers.compression.quantization.uniform import Grid, Parameters, UniformWeight
from workers.compression.specs.errors import InvalidResult
from workers.compression.specs.step import Contract

Arrays = Mapping[str, npt.NDArray[Any]]
Lengths = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=8)]
_PIECE = 1 << 20


class Description(Contract):
    """What the arrays of one weight mean.

    Args:
        kind: ``kept`` is a weight that stays as it is.
        lengths: Of the blocks, along the axes of the weight's matrix.
        dtype: Of narrower floats.
    """

    kind: Literal["uniform", "codebook", "floats", "kept"]
    bits: Annotated[int, Field(ge=1, le=8)] = 8
    signed: bool = False
    narrow: bool = False
    lengths: Lengths = ()
    dtype: FloatType = "float16"


def recorded(form: WeightForm | None) -> tuple[Description, Arrays]:
    """A form as arrays; None is a weight that stays as it is."""
    if isinstance(form, UniformWeight):
        return _uniform(form)
    if isinstance(form, CodebookWeight):
        described = Description(kind="codebook", bits=form.bits, lengths=form.blocks.lengths)
        scales = form.scales
        factors: Arrays = {} if scales is None else {"scale_codes": scales.codes, "scale_values": scales.values}
        return described, {"codes": _packed(form.codes, form.bits), "codebooks": form.codebooks, **factors}
    if isinstance(form, FloatForm):
        stored = form.values.astype(DTYPES[form.dtype])
        scale = {} if form.scale is None else {"scale": form.scale}
        return Description(kind="floats", dtype=form.dtype), {"values": stored.view(np.uint8), **scale}
    return Description(kind="kept"), {}


def restored(weight: Weight, description: Description, arrays: Arrays) -> WeightForm | None:
    """The form that was recorded for ``weight``.

    Raises:
        InvalidResult: The arrays are not those of such a form.
    """
    try:
        return _form(weight.matrix_shape, description, arrays)
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidResult(f"What was recorded for {weight.name} does not fit it.", reason="checkpoint_invalid") from (
            error
        )


def _scales(shape: tuple[int, int], arrays: Arrays) -> GroupScales | None:
    if "scale_codes" not in arrays:
        return None
    codes, values = arrays["scale_codes"], arrays["scale_values"]
    length = shape[1] // codes.shape[1]
    if codes.shape != (shape[0], shape[1] // length) or int(codes.max()) >= values.size:
        raise ValueError(f"{codes.shape} scales")
    return GroupScales(codes, values, length)


def _uniform(form: UniformWeight) -> tuple[Description, Arrays]:
    grid, parameters = form.grid, form.parameters
    codes = form.integers.view(np.uint8)
    if grid.signed:
        codes = codes + np.uint8(1 << (grid.bits - 1))
    arrays: dict[str, npt.NDArray[Any]] = {"codes": _packed(codes, grid.bits), "scale": parameters.scale}
    if parameters.zero is not None:
        arrays["zero"] = parameters.zero
    if parameters.offset is not None:
        arrays["offset"] = parameters.offset
    described = Description(
        kind="uniform", bits=grid.bits, signed=grid.signed, narrow=grid.narrow, lengths=form.blocks.lengths
    )
    return described, arrays


def _packed(codes: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """A piece at a time, because packing takes several times the memory of what is packed."""
    flat = codes.reshape(-1)
    if bits == 8:
        return flat
    packed = np.empty(packed_size(flat.size, bits), np.uint8)
    for start in range(0, flat.size, _PIECE):
        piece = pack(flat[start : start + _PIECE], bits)
        packed[start * bits // 8 :][: piece.size] = piece
    return packed


def _form(shape: tuple[int, int], described: Description, arrays: Arrays) -> WeightForm | None:
    if described.kind == "kept":
        return None
    if described.kind == "floats":
        values = arrays["values"].view(DTYPES[described.dtype]).reshape(shape).astype(np.float32)
        scale = arrays.get("scale")
        if scale is not None and scale.shape not in {(1, 1), (shape[0], 1)}:
            raise ValueError(f"{scale.shape} scales")
        return FloatForm(values, described.dtype, scale)
    blocks = Blocks(shape, described.lengths)
    codes = unpack(arrays["codes"].reshape(-1), described.bits, shape[0] * shape[1]).reshape(shape)
    if described.kind == "codebook":
        books = arrays["codebooks"]
        if books.shape[:-1] != blocks.counts or int(codes.max()) >= books.shape[-1]:
            raise ValueError(f"{books.shape} codebooks")
        return CodebookWeight(codes, books, described.bits, blocks, _scales(shape, arrays))
    grid = Grid(described.signed, described.bits, described.narrow)
    if described.signed:
        codes -= np.uint8(1 << (described.bits - 1))
    integers = codes.view(grid.dtype)
    parameters = Parameters(arrays["scale"], arrays.get("zero"), arrays.get("offset"))
    if any(found is not None and found.shape != blocks.counts for found in vars(parameters).values()):
        raise ValueError("parameters of other blocks")
    return UniformWeight(integers, parameters, grid, blocks)
