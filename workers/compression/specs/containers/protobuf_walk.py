"""Tells an ONNX model from other bytes by walking the outermost protobuf fields; nothing inside them is read."""

from collections.abc import Iterator
from typing import BinaryIO

# Field number -> wire type of onnx.ModelProto (0 varint, 2 length-delimited).
_MODEL_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_GRAPH = 7
_MAX_FIELDS = 100_000


def looks_like_onnx(file: BinaryIO, size: int) -> bool:
    """Whether the file is, or begins like, a serialized ONNX model.

    A truncated or mutated model counts too, so that it is reported as a broken ONNX file and not as an unknown
    format; how sound it is, the parser decides.
    """
    file.seek(0)
    seen: set[int] = set()
    for number, wire in _fields(file, size):
        if _MODEL_FIELDS.get(number) != wire:
            return _GRAPH in seen or len(seen) >= 2
        seen.add(number)
    return _GRAPH in seen or len(seen) >= 2


def _fields(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """Number and wire type of each field until the end or the first thing that is no field."""
    for _ in range(_MAX_FIELDS):
        key = _varint(file)
        if key is None or key >> 3 == 0:
            return
        yield key >> 3, key & 7
        length = _varint(file)
        if length is None:
            return
        if key & 7 == 2:
            if file.tell() + length > size:
                return
            file.seek(length, 1)
        elif key & 7 != 0:
            return


def _varint(file: BinaryIO) -> int | None:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None
