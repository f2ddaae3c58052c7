"""A tensor that is stored in few bits and reads like one of floats, some rows at a time."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from workers.compression.coding.packing import unpack, unpack_words
from workers.compression.families.tensors.layout import Layout, row_pieces
from workers.compression.families.tensors.stored import StoredTensor, to_numpy
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.codebook import CodebookWeight, GroupScales
from workers.compression.quantization.uniform import Parameters, decode
from workers.compression.specs.errors import InvalidModel

Floats = npt.NDArray[np.float32]
Rows = Callable[[slice], Floats]


@dataclass(frozen=True)
class QuantizedTensor(StoredTensor):
    """Float32 to whoever reads it.

    Args:
        layout: What the parts mean.
        parts: What is stored, by what follows the tensor's name.
    """

    layout: Layout = field(kw_only=True)
    parts: Mapping[str, StoredTensor] = field(kw_only=True)

    @classmethod
    def reading(cls, name: str, layout: Layout, parts: Mapping[str, StoredTensor]) -> Self:
        """The tensor that ``parts`` stand for.

        Raises:
            InvalidModel: They do not fit the layout.
        """
        _check(name, layout, parts)
        stream = partial(_stream, name, layout, parts)
        return cls(
            torch.float32,
            layout.shape,
            lambda: torch.cat(list(stream())).reshape(layout.shape),
            stream,
            layout=layout,
            parts=parts,
        )

    @property
    def is_plain(self) -> bool:
        """They are not."""
        return False

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts.values())


def _stream(name: str, layout: Layout, parts: Mapping[str, StoredTensor]) -> Iterator[torch.Tensor]:
    arrays = {suffix: to_numpy(part.load()) for suffix, part in parts.items()}
    rows = {"uniform": _uniform, "codebook": _codebook, "float": _floats}[layout.kind](layout, arrays)
    for piece in row_pieces(*layout.matrix_shape):
        try:
            yield torch.from_numpy(rows(piece).reshape(-1))
        except IndexError as error:
            raise InvalidModel(f"{name[:200]} has codes beyond its codebook.", reason="tensor_layout") from error


def _uniform(layout: Layout, arrays: Mapping[str, npt.NDArray[Any]]) -> Rows:
    rows, columns = layout.matrix_shape
    bits = layout.bits
    scale, offset, zero = arrays["_scale"].astype(np.float32), arrays.get("_offset"), arrays.get("_zero_point")
    if bits < 8 and zero is not None:
        zero = unpack_words(np.ascontiguousarray(zero.T), bits, scale.shape[0]).T
    if bits < 8 and zero is None and offset is None:
        zero = np.full(scale.shape, 1 << (bits - 1), np.uint8)

    def integers(piece: slice) -> npt.NDArray[Any]:
        if bits < 8:
            return unpack_words(np.ascontiguousarray(arrays["_packed"][piece]), bits, columns)
        return arrays[""].reshape(rows, columns)[piece]

    def restored(piece: slice) -> Floats:
        (found_scale, found_zero, found_offset), blocks = _parameters(layout, piece, scale, zero, offset)
        if found_scale is None:
            raise TypeError("scales are never missing")
        return decode(integers(piece), Parameters(found_scale, found_zero, found_offset), blocks)

    return restored


def _codebook(layout: Layout, arrays: Mapping[str, npt.NDArray[Any]]) -> Rows:
    columns = layout.matrix_shape[1]
    streams, books = arrays[".codes"], arrays[".codebook"].astype(np.float32)
    factors = arrays[".scales"].astype(np.float32) if ".scales" in arrays else None
    missing = -columns % 8

    def restored(piece: slice) -> Floats:
        packed = np.ascontiguousarray(streams[piece])
        whole = np.zeros((len(packed), (columns + missing) * layout.bits // 8), np.uint8)
        whole[:, : packed.shape[1]] = packed
        codes = unpack(whole.reshape(-1), layout.bits, len(packed) * (columns + missing))
        codes = np.ascontiguousarray(codes.reshape(len(packed), -1)[:, :columns])
        (found, *_), blocks = _parameters(layout, piece, books)
        if found is None:
            raise TypeError("codebooks are never missing")
        scales = None
        if factors is not None:
            own = arrays[".scale_codes"][piece]
            scales = GroupScales(own, factors, columns // own.shape[1])
        return CodebookWeight(codes, found, layout.bits, blocks, scales).restored()

    return restored


def _floats(layout: Layout, arrays: Mapping[str, npt.NDArray[Any]]) -> Rows:
    values, scale = arrays[""].reshape(layout.matrix_shape), arrays["_scale"]

    def restored(piece: slice) -> Floats:
        factors = scale if len(scale) == 1 else scale[piece]
        return np.asarray(values[piece].astype(np.float32) * factors, np.float32)

    return restored


def _parameters(
    layout: Layout, piece: slice, *parameters: npt.NDArray[Any] | None
) -> tuple[list[npt.NDArray[Any] | None], Blocks]:
    """The parameters of some rows, and the blocks that these rows make up."""
    columns = layout.matrix_shape[1]
    length, width = layout.block
    count = piece.stop - piece.start
    first, last = piece.start // length, (piece.stop - 1) // length
    chosen: slice | npt.NDArray[np.intp]
    if first == last:
        chosen, height = slice(first, first + 1), count
    else:
        chosen, height = np.arange(piece.start, piece.stop) // length, 1
    found = [None if given is None else given[chosen] for given in parameters]
    return found, Blocks((count, columns), (height, min(width, columns)))


def _check(name: str, layout: Layout, parts: Mapping[str, StoredTensor]) -> None:
    rows, columns = layout.matrix_shape
    counts = (-(-rows // layout.block[0]), -(-columns // layout.block[1]))
    bits = layout.bits
    shapes = {suffix: part.shape for suffix, part in parts.items()}
    wanted: dict[str, tuple[int, ...]] = {}
    if layout.kind == "codebook":
        entries = _last(shapes.get(".codebook"))
        wanted = {".codes": (rows, -(-columns * bits // 8)), ".codebook": (*counts, entries)}
        fine = 0 < entries <= 1 << bits
        if ".scales" in shapes:
            count, groups = _last(shapes[".scales"]), _last(shapes.get(".scale_codes"))
            fine = fine and counts == (1, 1) and 0 < count <= 256 and groups > 0 and columns % groups == 0
            wanted |= {".scales": (count,), ".scale_codes": (rows, groups)}
    elif layout.kind == "float":
        wanted = {"": layout.shape, "_scale": counts}
        fine = counts[1] == 1 and counts[0] in {1, rows}
    else:
        zeros = counts if bits == 8 else (-(-counts[0] * bits // 32), counts[1])
        optional = {"_zero_point": zeros, "_offset": counts}
        wanted = {"_scale": counts, **{suffix: shape for suffix, shape in optional.items() if suffix in shapes}}
        packed = {"_packed": (rows, -(-columns * bits // 32)), "_shape": (2,)}
        wanted |= {"": layout.shape} if bits == 8 else packed
        fine = not {"_zero_point", "_offset"} <= shapes.keys()
    if not fine or shapes != wanted or any(_strange(suffix, part.dtype) for suffix, part in parts.items()):
        raise InvalidModel(f"The tensors of {name[:200]} do not fit its layout.", reason="tensor_layout")


FLOATS = (torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
_TYPES: Mapping[str, frozenset[torch.dtype]] = {
    "": frozenset({torch.int8, torch.uint8, *FLOATS}),
    "_packed": frozenset({torch.int32}),
    "_scale": frozenset({torch.float16, torch.float32}),
    "_zero_point": frozenset({torch.int8, torch.int32}),
    "_offset": frozenset({torch.float32}),
    "_shape": frozenset({torch.int64}),
    ".codes": frozenset({torch.uint8}),
    ".codebook": frozenset({torch.float16, torch.float32}),
    ".scales": frozenset({torch.float16, torch.float32}),
    ".scale_codes": frozenset({torch.uint8}),
}
SUFFIXES = tuple(_TYPES)
BOOK = ".codebook"
"""The one part that several weights may share."""


def _last(shape: tuple[int, ...] | None) -> int:
    return shape[-1] if shape else 0


def _strange(suffix: str, dtype: torch.dtype) -> bool:
    return dtype not in _TYPES[suffix]
