"""Names, dtypes and shapes of the arrays in an .npz, read without numpy and before anything is allocated.

``numpy.load`` allocates what a header claims before it reads: a header of 100 bytes asks for terabytes.
"""

import ast
import math
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from workers.compression.specs.containers.limits import DATASET_REFUSALS, NPZ_LIMITS, ArchiveLimits
from workers.compression.specs.containers.zip_rules import checked_entries
from workers.compression.specs.errors import InvalidDataset

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 10_000
MAX_RANK = 32
_DTYPE = re.compile(r"[<>|=](?:(b)1|([iu])[1248]|(f)[248]|(U)[1-9]\d{0,6})")


@dataclass(frozen=True)
class ArrayHeader:
    """One array: its name without ``.npy``, numpy's dtype string, and where its values begin inside the entry."""

    name: str
    entry: str
    dtype: str
    shape: tuple[int, ...]
    fortran_order: bool
    stored: bool
    values_offset: int


def read_npz_headers(path: Path, limits: ArchiveLimits = NPZ_LIMITS) -> tuple[ArrayHeader, ...]:
    """Checks the ZIP rules and every array's header.

    Raises:
        TooLarge: ``archive_bomb``.
        InvalidDataset: ``npz_object_dtype``, ``npz_header``, ``archive_entry_refused``, ``archive_invalid``.
    """
    entries = checked_entries(path, limits, DATASET_REFUSALS)
    with zipfile.ZipFile(path) as archive:
        return tuple(_read_entry(archive, entry) for entry in entries)


def _invalid(name: str, what: str, reason: str = "npz_header") -> InvalidDataset:
    return InvalidDataset(f"Array {ascii(name)[:120]} {what}.", reason=reason)


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> ArrayHeader:
    name = entry.filename.removesuffix(".npy")
    if name == entry.filename:
        raise _invalid(name, "is not an .npy entry")
    try:
        with archive.open(entry) as file:
            text, offset = _header_text(file, name)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise _invalid(name, "is damaged") from error
    dtype, fortran_order, shape = _parse(text, name)
    if math.prod(shape) * item_bytes(dtype) != entry.file_size - offset:
        raise _invalid(name, "has other bytes than its shape needs")
    stored = entry.compress_type == zipfile.ZIP_STORED
    return ArrayHeader(name, entry.filename, dtype, shape, fortran_order, stored, offset)


def item_bytes(dtype: str) -> int:
    """Bytes per value of a numpy dtype string such as ``<f4`` or ``<U12``."""
    count = int(dtype[2:])
    return 4 * count if dtype[1] == "U" else count


def _header_text(file: IO[bytes], name: str) -> tuple[str, int]:
    prefix = file.read(8)
    if len(prefix) < 8 or not prefix.startswith(MAGIC):
        raise _invalid(name, "does not begin like an .npy file")
    width = {1: "<H", 2: "<I", 3: "<I"}.get(prefix[6])
    if width is None:
        raise _invalid(name, "has an unknown .npy version")
    size = struct.calcsize(width)
    raw = file.read(size)
    if len(raw) < size:
        raise _invalid(name, "has a truncated header")
    (length,) = struct.unpack(width, raw)
    if length > MAX_HEADER_BYTES:
        raise _invalid(name, f"has a header over {MAX_HEADER_BYTES} bytes")
    text = file.read(length)
    if len(text) < length:
        raise _invalid(name, "has a truncated header")
    return text.decode("latin-1"), 8 + size + length


def _parse(text: str, name: str) -> tuple[str, bool, tuple[int, ...]]:
    try:
        header: Any = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise _invalid(name, "has an unreadable header") from error
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise _invalid(name, "has a header with other fields than descr, fortran_order and shape")
    dtype, fortran_order, shape = header["descr"], header["fortran_order"], header["shape"]
    if isinstance(dtype, str) and dtype.lstrip("<>|=").startswith("O"):
        raise _invalid(name, "holds Python objects, which would have to be unpickled", "npz_object_dtype")
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise _invalid(name, "is neither of booleans, integers, floats nor text", "npz_object_dtype")
    sane = isinstance(shape, tuple) and all(type(axis) is int and 0 <= axis < 1 << 48 for axis in shape)
    if not sane or len(shape) > MAX_RANK or type(fortran_order) is not bool:
        raise _invalid(name, "has an impossible shape")
    return dtype, fortran_order, shape
