"""The header of a safetensors file, read without the library.

The library accepts doubled keys (the last one wins), names such as ``../../etc/x``, shapes such as ``[0, 2**40]`` and
hundreds of thousands of tensors; here each of these is refused before it ever sees the file.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from workers.compression.specs.containers.json_limits import parse_json
from workers.compression.specs.errors import InvalidModel, TooLarge, UnsafeModel

MAX_HEADER_BYTES = 16 << 20
MAX_TENSORS = 20_000
MAX_RANK = 8
MAX_DIMENSION = 1 << 31

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip
_NAME = re.compile(r"[\w.\-/:]{1,256}", re.ASCII)


@dataclass(frozen=True)
class TensorEntry:
    """One tensor: where its bytes lie, counted from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class SafetensorsHeader:
    """Tensors in order of their bytes, and the free-form metadata."""

    tensors: tuple[TensorEntry, ...]
    metadata: dict[str, str]


def read_header(path: Path) -> SafetensorsHeader:
    """Parses and checks the header; no tensor is read.

    Raises:
        InvalidModel: ``safetensors_invalid``.
        UnsafeModel: ``safetensors_invalid``, for a name that is a path out of the file or holds odd characters.
        TooLarge: ``safetensors_invalid`` for a header over 16 MiB or more than 20,000 tensors, ``tensor_too_large``.
    """
    with path.open("rb") as file:
        return read_header_of(file, path.stat().st_size)


def read_header_of(file: IO[bytes], size: int) -> SafetensorsHeader:
    """The same of an open file of ``size`` bytes, such as one inside an archive."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise _invalid("The header is longer than the file")
    if length > MAX_HEADER_BYTES:
        raise TooLarge("The safetensors header is larger than 16 MiB.", reason="safetensors_invalid")
    raw = file.read(length)
    if not raw.startswith(b"{"):
        raise _invalid("The header does not begin with an object")
    content = parse_json(raw, InvalidModel, max_depth=4)
    metadata = _metadata(content.pop("__metadata__", {}))
    if len(content) > MAX_TENSORS:
        raise TooLarge(f"The file holds more than {MAX_TENSORS} tensors.", reason="safetensors_invalid")
    if not content:
        raise _invalid("It holds no tensors")
    entries = [_entry(name, description, 8 + length) for name, description in content.items()]
    entries.sort(key=lambda entry: (entry.start, entry.end))
    _check_layout(entries, 8 + length, size)
    return SafetensorsHeader(tuple(entries), metadata)


def _invalid(what: str) -> InvalidModel:
    return InvalidModel(f"Not a valid safetensors file. {what}.", reason="safetensors_invalid")


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise _invalid("Its metadata is not a map of strings")
    return value


def _entry(name: str, description: Any, base: int) -> TensorEntry:
    if not _NAME.fullmatch(name) or ".." in name or name.startswith("/"):
        raise UnsafeModel(
            f"Tensor name {ascii(name)[:120]} may only hold letters, digits and '_.-/:', and no '..'.",
            reason="safetensors_invalid",
        )
    if not isinstance(description, dict) or set(description) != {"dtype", "shape", "data_offsets"}:
        raise _invalid(f"Tensor {name} is described by other fields than dtype, shape and data_offsets")
    dtype, shape, offsets = description["dtype"], description["shape"], description["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _invalid(f"Tensor {name} has the unknown dtype {ascii(dtype)[:40]}")
    if not _is_naturals(shape) or not _is_naturals(offsets) or len(offsets) != 2:
        raise _invalid(f"Tensor {name} has a shape or offsets that are no lists of natural numbers")
    if len(shape) > MAX_RANK or any(axis > MAX_DIMENSION for axis in shape):
        raise TooLarge(f"Tensor {name} has more than 8 axes or an axis over 2**31.", reason="tensor_too_large")
    if math.prod(shape) * DTYPE_BITS[dtype] != (offsets[1] - offsets[0]) * 8:
        raise _invalid(f"Tensor {name} has other bytes than its shape needs")
    return TensorEntry(name, dtype, tuple(shape), base + offsets[0], base + offsets[1])


def _is_naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_layout(entries: list[TensorEntry], position: int, size: int) -> None:
    for entry in entries:
        if entry.start != position:
            raise _invalid(f"The bytes of tensor {entry.name} overlap others or leave a gap")
        position = entry.end
    if position != size:
        raise _invalid("There are bytes after the last tensor, or the file is truncated")
