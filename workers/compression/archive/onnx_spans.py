"""Finds the tensors of a serialized ONNX model by walking its protobuf fields; the file is never parsed as a whole."""

import mmap
from collections.abc import Iterator

# Fields that lead from ModelProto to TensorProto, by message.
_INSIDE = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_DATA_TYPE, _FLOATS, _RAW_DATA = 2, 4, 9
# onnx.TensorProto.DataType -> bytes of an element; others are coded as bytes.
_WIDTHS = {1: 4, 4: 2, 5: 2, 6: 4, 7: 8, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
_FIXED = {1: 8, 5: 4}
_MAX_DEPTH = 32

Place = tuple[int, int, int]


def onnx_tensors(content: mmap.mmap) -> Iterator[Place]:
    """Start, end and bytes of an element of each tensor's data; ends at the first thing that is no protobuf."""
    yield from _message(content, 0, len(content), "model", 0)


def _message(content: mmap.mmap, start: int, end: int, kind: str, depth: int) -> Iterator[Place]:
    if kind == "tensor":
        yield from _tensor(content, start, end)
        return
    for number, value, stop in _fields(content, start, end):
        inside = _INSIDE[kind].get(number)
        if inside is not None and stop is not None and depth < _MAX_DEPTH:
            yield from _message(content, value, stop, inside, depth + 1)


def _tensor(content: mmap.mmap, start: int, end: int) -> Iterator[Place]:
    width = 1
    data: tuple[int, int] | None = None
    for number, value, stop in _fields(content, start, end):
        if number == _DATA_TYPE and stop is None:
            width = _WIDTHS.get(value, 1)
        elif number in {_FLOATS, _RAW_DATA} and stop is not None:
            data = (value, stop)
    if data is not None:
        yield (*data, width)


def _fields(content: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int | None]]:
    """Number, then start and end of the bytes of a field, or its value and None."""
    while position < end:
        key, position = _varint(content, position, end)
        number, wire = key >> 3, key & 7
        if number == 0:
            return
        if wire == 0:
            value, position = _varint(content, position, end)
            yield number, value, None
        elif wire == 2:
            length, position = _varint(content, position, end)
            if position + length > end:
                return
            yield number, position, position + length
            position += length
        elif wire in _FIXED:
            position += _FIXED[wire]
        else:
            return


def _varint(content: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    """The number and where it ends; beyond ``end`` if it is cut off, which ends every walk."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    return 0, end
