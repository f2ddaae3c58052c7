"""Weights in few bits among plain tensors: which tensors stand for one weight, and what they mean.

A weight of any rank is seen as the matrix (first axis, all others). In a file, the entry ``pressroom_layouts`` (JSON;
metadata in safetensors, a string in a state dict) gives for each weight its shape, bits and block lengths, and which
tied names share it. The tensors beside it, all rows by themselves and bits from the lowest up:

uniform, fewer than 8 bits
    As compressed-tensors' ``pack-quantized``: ``<name>_packed`` int32 (rows, words) holds unsigned integers,
    ``<name>_scale`` and ``<name>_zero_point`` (packed too, along the rows) one element per block, ``<name>_shape`` the
    matrix's shape. Without zero points zero is ``2^(bits-1)``; with ``<name>_offset`` (ours) the value is
    ``integer * scale + offset``.
uniform, 8 bits
    As its ``int-quantized``: ``<name>`` int8 in the weight's shape, ``<name>_scale``, ``<name>_zero_point`` int8; with
    ``<name>_offset`` the integers are uint8.
codebook
    ``<name>.codes`` uint8 (rows, bytes), ``<name>.codebook`` (row blocks, column blocks, entries). A weight
    with a single codebook may have ``<name>.scales``, up to 256 numbers; ``<name>.scale_codes`` uint8 (rows, groups)
    names the one that the entries of a group are multiplied by. Groups are of equal length. ``<name>.codebook`` may be
    a tied name of another weight's.
float
    As its ``float-quantized``: ``<name>`` in 8-bit floats, ``<name>_scale`` one per row or a single one.

Scales and codebooks are float16 where that loses nothing, else float32.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from workers.compression.coding.packing import pack, pack_words
from workers.compression.families.weights import WeightForm
from workers.compression.quantization.codebook import CodebookWeight
from workers.compression.quantization.narrow_floats import DTYPES
from workers.compression.quantization.uniform import UniformWeight
from workers.compression.specs.errors import InvalidModel
from workers.compression.specs.step import Contract

KEY: Final = "pressroom_layouts"
PIECE: Final = 1 << 18
"""Elements that are worked on at a time: what fits into a core's cache."""

Arrays = Mapping[str, npt.NDArray[Any]]
Length = Annotated[int, Field(ge=1, le=1 << 31)]


class Layout(Contract):
    """What the tensors of one weight mean.

    Args:
        shape: Of the weight.
        bits: Of one integer or code.
        block: Rows and columns of the matrix that share parameters or a codebook.
    """

    kind: Literal["uniform", "codebook", "float"]
    shape: Annotated[tuple[Length, ...], Field(min_length=1, max_length=8)]
    bits: Annotated[int, Field(ge=1, le=8)] = 8
    block: tuple[Length, Length] = (1, 1)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(first axis, all others)."""
        return self.shape[0], int(np.prod(self.shape[1:], dtype=np.int64))


class Layouts(Contract):
    """The entry ``pressroom_layouts``.

    Args:
        weights: By name.
        shared: Names of tied weights, each mapped to the one that is stored.
    """

    weights: dict[str, Layout]
    shared: dict[str, str] = Field(default_factory=dict)


def parse_layouts(text: str) -> Layouts:
    """Parses the entry of a file that may be anyone's.

    Raises:
        InvalidModel: It is not well-formed.
    """
    try:
        return Layouts.model_validate_json(text)
    except ValidationError as error:
        raise InvalidModel(f"The entry {KEY} cannot be read.", reason="tensor_layout") from error


def parts_of(form: WeightForm, shape: tuple[int, ...]) -> tuple[Layout, Arrays]:
    """How a weight of ``shape`` is stored: its layout, and arrays by what follows the weight's name."""
    if isinstance(form, UniformWeight):
        return _uniform(form, shape)
    if isinstance(form, CodebookWeight):
        layout = Layout(kind="codebook", shape=shape, bits=form.bits, block=_block(form.blocks.lengths))
        scales = form.scales
        factors: Arrays = {} if scales is None else {".scale_codes": scales.codes, ".scales": _short(scales.values)}
        return layout, {".codes": _packed(form.codes, form.bits), ".codebook": _short(form.codebooks), **factors}
    values = form.values.astype(DTYPES[form.dtype]).reshape(shape)
    rows, columns = form.values.shape
    scale = {} if form.scale is None else {"_scale": form.scale}
    shared_rows = rows if form.scale is not None and form.scale.shape[0] == 1 else 1
    return Layout(kind="float", shape=shape, block=(shared_rows, columns)), {"": values, **scale}


def row_pieces(rows: int, columns: int) -> Iterator[slice]:
    """Rows of about ``PIECE`` elements at a time."""
    step = max(1, PIECE // columns)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _uniform(form: UniformWeight, shape: tuple[int, ...]) -> tuple[Layout, Arrays]:
    bits, offset = form.grid.bits, form.parameters.offset
    layout = Layout(kind="uniform", shape=shape, bits=bits, block=_block(form.blocks.lengths))
    form = form.signed() if bits == 8 and offset is None else form.unsigned()
    zero, offset = form.parameters.zero, form.parameters.offset
    arrays: dict[str, npt.NDArray[Any]] = {"_scale": _short(form.parameters.scale)}
    if offset is not None:
        arrays["_offset"] = offset
    if bits == 8:
        return layout, {"": form.integers.reshape(shape), **arrays, **({} if zero is None else {"_zero_point": zero})}
    if zero is not None and not (zero == 1 << (bits - 1)).all():
        arrays["_zero_point"] = pack_words(np.ascontiguousarray(zero.T, np.uint8), bits).T.copy()
    return layout, {"_packed": _words(form), **arrays, "_shape": np.array(form.integers.shape, np.int64)}


def _words(form: UniformWeight) -> npt.NDArray[np.int32]:
    """Unsigned integers, packed; a piece at a time, because packing takes several times their memory."""
    bits, (rows, columns) = form.grid.bits, form.integers.shape
    words = np.empty((rows, -(-columns * bits // 32)), np.int32)
    for piece in row_pieces(rows, columns):
        words[piece] = pack_words(form.integers[piece].astype(np.uint8), bits)
    return words


def _packed(codes: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    rows, columns = codes.shape
    packed = np.empty((rows, -(-columns * bits // 8)), np.uint8)
    for piece in row_pieces(rows, columns):
        padded = np.pad(codes[piece], ((0, 0), (0, -columns % 8)))
        packed[piece] = pack(padded, bits).reshape(len(padded), -1)[:, : packed.shape[1]]
    return packed


def _short(values: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    with np.errstate(over="ignore", under="ignore"):
        half = values.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), values) else values


def _block(lengths: tuple[int, ...]) -> tuple[int, int]:
    rows, columns = lengths
    return rows, columns
