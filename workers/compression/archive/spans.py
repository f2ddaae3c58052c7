"""Where in a model file its tensors lie, and what their elements are; everything else is the skeleton.

Spans are hints for the coder and nothing more: whatever they say, the archive gives back the same bytes.
"""

import mmap
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workers.compression.archive.onnx_spans import onnx_tensors
from workers.compression.specs.containers.safetensors_header import DTYPE_BITS, read_header, read_header_of
from workers.compression.specs.containers.sniffing import sniff_model
from workers.compression.specs.errors import EngineError
from workers.compression.specs.formats import ModelFormat

MIN_TENSOR_BYTES = 96
"""Smaller ones stay in the skeleton: a block of their own costs more than it gains."""

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")


@dataclass(frozen=True)
class Span:
    """Bytes ``start`` to ``end`` of the file; ``width`` is that of an element, or 1 if unknown."""

    start: int
    end: int
    width: int


def tensor_spans(path: Path) -> list[Span]:
    """Tensors of at least 96 bytes in rising order, without overlaps; none if the format is unknown."""
    found = sorted(_candidates(path), key=lambda span: (span.start, span.end))
    spans: list[Span] = []
    for span in found:
        if span.end - span.start >= MIN_TENSOR_BYTES and (not spans or span.start >= spans[-1].end):
            spans.append(span)
    return spans


def _candidates(path: Path) -> Iterator[Span]:
    try:
        form = sniff_model(path)
    except EngineError:
        return
    if form is ModelFormat.ONNX:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for start, end, width in onnx_tensors(content):
                yield Span(start, end, width)
    elif form is ModelFormat.SAFETENSORS:
        for entry in read_header(path).tensors:
            yield Span(entry.start, entry.end, _width(entry.dtype))
    elif zipfile.is_zipfile(path):
        yield from _stored_entries(path)


def _stored_entries(path: Path) -> Iterator[Span]:
    """Entries that are not deflated; safetensors files among them by their tensors."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size < MIN_TENSOR_BYTES:
                continue
            file.seek(entry.header_offset)
            *_, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            start = entry.header_offset + _LOCAL_HEADER.size + name + extra
            yield from _entry_spans(archive, entry, start)


def _entry_spans(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, start: int) -> Iterator[Span]:
    end = start + entry.file_size
    if not entry.filename.endswith(".safetensors"):
        # Storages of torch programs have no dtype beside them; nearly all are float32, and the smallest coding wins.
        plain = entry.filename.endswith((".json", ".txt", ".py", ".model"))
        yield Span(start, end, 1 if plain else 4)
        return
    try:
        with archive.open(entry) as opened:
            header = read_header_of(opened, entry.file_size)
    except (EngineError, zipfile.BadZipFile, OSError):
        yield Span(start, end, 1)
        return
    for tensor in header.tensors:
        yield Span(start + tensor.start, start + tensor.end, _width(tensor.dtype))


def _width(dtype: str) -> int:
    return max(1, DTYPE_BITS[dtype] // 8)
