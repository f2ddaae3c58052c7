"""What the buffers of an exported program mean that hold a weight which is not stored as plain floats.

The operators that restore it are all that torch needs. What they do is noted beside them, as JSON in a buffer that no
operator reads, so that a program can be inspected without following its graph.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch

from workers.compression.families.torch.storage import CodebookStorage, Place, Quantized, ScaledFloats
from workers.compression.specs.containers.json_limits import parse_json
from workers.compression.specs.errors import InvalidModel

NOTES_NAME: Final = "quantization_notes"
SCALE_SUFFIX: Final = "_scale"
ZERO_POINT_SUFFIX: Final = "_zero_point"
OFFSET_SUFFIX: Final = "_offset"
CODEBOOK_SUFFIX: Final = "_codebook"
START_SUFFIX: Final = "_codebook_start"
SCALE_CODES_SUFFIX: Final = "_scale_codes"
SCALE_VALUES_SUFFIX: Final = "_scale_values"
_PLANE_WIDTHS: Final = (8, 4, 2, 1)
_DTYPES: Final = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
}
_NUMBERS: Final = {
    "integers": {torch.int8, torch.uint8},
    "codes": {torch.uint8},
    "floats": {torch.float8_e4m3fn, torch.float8_e5m2},
}
_USUAL: Final[dict[str, Any]] = {"kind": "integers", "bits": 8, "dtype": "float32"}
_OPERATOR: Final = re.compile(r"\w{0,100}", re.ASCII)
_MAX_NOTES_BYTES: Final = 32 << 20
_REASON: Final = "pt2_weights"


Kind = Literal["integers", "codes", "floats"]
Tensors = Mapping[str, torch.Tensor]


def plane_widths(bits: int) -> tuple[int, ...]:
    """Widths that divide a byte and sum to ``bits``; the first holds the lowest bits."""
    return tuple(width for width in _PLANE_WIDTHS if bits & width)


def plane_names(name: str, bits: int) -> tuple[str, ...]:
    """The buffers that hold the bits of a weight."""
    return tuple(f"{name}_plane{index}" if index else name for index in range(len(plane_widths(bits))))


@dataclass(frozen=True)
class Note:
    """What the buffers of one weight mean.

    Args:
        kind: Integers with scales, codes into codebooks, or 8-bit floats with scales.
        bits: Of an integer, code or float.
        lengths: (rows, columns) of a block.
        place: What the weight is restored to.
        reader: The operator that the weight is for, such as ``linear``.
        signed: Whether integers are.
        by_row: Whether each row is packed by itself, as in a table.
    """

    kind: Kind
    bits: int
    lengths: tuple[int, int]
    place: Place
    reader: str
    signed: bool
    by_row: bool

    @classmethod
    def of(cls, stored: Quantized, reader: str, *, by_row: bool) -> "Note":
        """The note on a weight that is to be stored."""
        if isinstance(stored, CodebookStorage):
            lengths = (stored.rows, stored.codes.shape[1])
            return cls("codes", stored.bits, lengths, stored.place, reader, signed=False, by_row=by_row)
        rows, columns = stored.matrix_shape
        if isinstance(stored, ScaledFloats):
            lengths = (rows if stored.scales.numel() == 1 else 1, columns)
            return cls("floats", 8, lengths, stored.place, reader, signed=True, by_row=by_row)
        signed = stored.integers.dtype == torch.int8
        return cls("integers", stored.bits, stored.lengths, stored.place, reader, signed=signed, by_row=by_row)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        rows = self.place.permuted[0]
        return rows, math.prod(self.place.shape) // rows

    @property
    def counts(self) -> tuple[int, int]:
        """Blocks along the rows and the columns."""
        (rows, columns), (height, width) = self.matrix_shape, self.lengths
        return -(-rows // height), -(-columns // width)

    @property
    def padded(self) -> tuple[int, int]:
        """The matrix's shape, filled up to whole blocks; rows that are looked up one by one are not, nor are codes."""
        (height, width), (down, across) = self.lengths, self.counts
        if self.kind == "codes":
            return self.matrix_shape
        return self.matrix_shape[0] if self.by_row else down * height, across * width

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """The shape of scales: as the operator that reads them wants it."""
        down, across = self.counts
        if down * across == 1:
            return (1,)
        by_row = self.by_row or (across == 1 and self.lengths[0] == 1)
        return (down, across) if by_row else (down, 1, across, 1)

    def encoded(self) -> dict[str, Any]:
        """As JSON, without what goes without saying."""
        usual = {"order": list(range(len(self.place.shape))), "signed": False, "by_row": False} | _USUAL
        whole = {
            "kind": self.kind,
            "bits": self.bits,
            "block": list(self.lengths),
            "shape": list(self.place.shape),
            "order": list(self.place.order),
            "dtype": str(self.place.dtype).removeprefix("torch."),
            "reader": self.reader,
            "signed": self.signed,
            "by_row": self.by_row,
        }
        return {key: value for key, value in whole.items() if key not in usual or usual[key] != value}


def buffer_shapes(note: Note) -> list[tuple[int, ...]]:
    """The shapes of ``packed_planes``."""
    if note.bits == 8:
        return [note.padded]
    rows, columns = note.padded
    per_row = columns if note.by_row else rows * columns
    lengths = [-(-per_row // 8) * width for width in plane_widths(note.bits)]
    return [(rows, length) if note.by_row else (length,) for length in lengths]


def encode_notes(notes: Mapping[str, Note]) -> torch.Tensor:
    """All notes of a program as the bytes of a JSON document."""
    document = json.dumps({name: note.encoded() for name, note in notes.items()}, separators=(",", ":"))
    return torch.frombuffer(bytearray(document.encode()), dtype=torch.uint8)


def read_notes(tensors: Tensors) -> dict[str, Note]:
    """The notes of a program that may be anyone's, held against its buffers.

    Raises:
        InvalidModel: They are malformed, or the buffers are not what they say.
    """
    stored = tensors.get(NOTES_NAME)
    if stored is None:
        return {}
    if stored.dtype != torch.uint8 or stored.dim() != 1 or stored.numel() > _MAX_NOTES_BYTES:
        raise InvalidModel(f"{NOTES_NAME} is no document.", reason=_REASON)
    document = parse_json(stored.numpy().tobytes(), InvalidModel)
    entries = document.items() if isinstance(document, dict) else ()
    return {name: _checked(name, entry, tensors) for name, entry in entries}


def _checked(name: str, entry: Any, tensors: Tensors) -> Note:
    note = _note(entry) if isinstance(entry, dict) else None
    if note is None or not _fits(name, note, tensors):
        raise InvalidModel(f"The buffers of {name[:200]!r} are not what {NOTES_NAME} says.", reason=_REASON)
    return note


def _note(entry: dict[str, Any]) -> Note | None:
    """A note whose numbers can be computed with; None where the entry is not one."""
    block, shape = (_sizes(entry.get(key)) for key in ("block", "shape"))
    order = _sizes(entry.get("order", list(range(len(shape or ())))))
    kind, bits, named = (entry.get(key, usual) for key, usual in _USUAL.items())
    dtype = _DTYPES.get(str(named))
    if block is None or shape is None or order is None or dtype is None or kind not in ("integers", "codes", "floats"):
        return None
    if len(block) != 2 or sorted(order) != list(range(len(shape))) or not shape or 0 in (*block, *shape):
        return None
    if type(bits) is not int or not 1 <= bits <= 8 or (kind == "floats" and bits != 8):
        return None
    reader = entry.get("reader")
    if not isinstance(reader, str) or not _OPERATOR.fullmatch(reader):
        return None
    place = Place(shape, order, dtype)
    signed, by_row = entry.get("signed") is True, entry.get("by_row") is True
    return Note(kind, bits, (block[0], block[1]), place, reader, signed, by_row)


def _sizes(value: Any) -> tuple[int, ...] | None:
    fine = isinstance(value, list) and len(value) <= 8 and all(type(n) is int and 0 <= n < 1 << 31 for n in value)
    return tuple(value) if fine else None


def _fits(name: str, note: Note, tensors: Tensors) -> bool:
    (rows, columns), (height, width) = note.matrix_shape, note.lengths
    planes = [tensors.get(plane) for plane in plane_names(name, note.bits)]
    if height > rows or width > columns or [p is not None and tuple(p.shape) for p in planes] != buffer_shapes(note):
        return False
    if not {plane.dtype for plane in planes if plane is not None} <= _NUMBERS[note.kind]:
        return False
    if note.kind == "codes":
        books = tensors.get(name + CODEBOOK_SUFFIX)
        fits = width == columns and books is not None and _are_books(books, note)
        return fits and _are_group_scales(name, note, tensors)
    scale, zero, offset = (tensors.get(name + suffix) for suffix in (SCALE_SUFFIX, ZERO_POINT_SUFFIX, OFFSET_SUFFIX))
    found = [parameter for parameter in (scale, zero, offset) if parameter is not None]
    floats = all(parameter.is_floating_point() for parameter in (scale, offset) if parameter is not None)
    return (
        scale is not None
        and floats
        and (zero is None or zero.dtype == torch.int8)
        and all(tuple(parameter.shape) == note.scale_shape for parameter in found)
    )


def _are_group_scales(name: str, note: Note, tensors: Tensors) -> bool:
    """Whether there are none, or codes of one scale for each of a row's equally long groups, and those scales."""
    codes, values = (tensors.get(name + suffix) for suffix in (SCALE_CODES_SUFFIX, SCALE_VALUES_SUFFIX))
    if codes is None or values is None:
        return codes is values
    (rows, columns), few = note.matrix_shape, values.dim() == 2 and values.shape[1] == 1 and 0 < len(values) <= 256
    by_group = codes.dim() == 2 and len(codes) == rows and codes.shape[1] > 0 and columns % codes.shape[1] == 0
    right_types = codes.dtype == torch.uint8 and values.is_floating_point()
    return few and by_group and right_types and note.counts[0] == 1


def _are_books(books: torch.Tensor, note: Note) -> bool:
    entries, rest = divmod(books.numel(), note.counts[0])
    return books.is_floating_point() and books.dim() == 2 and not rest and 0 < entries <= 1 << note.bits
