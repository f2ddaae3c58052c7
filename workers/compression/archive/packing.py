"""Makes archives: ``pack`` streams a model file of any size through memory for one piece."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import xxhash

from workers.compression.archive import codecs
from workers.compression.archive.container import MAX_SKELETON_BYTES, PIECE_BYTES, Entry, block, head, tail
from workers.compression.archive.grouping import MOST_PIECES, Block, best_group
from workers.compression.archive.spans import Span, tensor_spans
from workers.compression.archive.trees import forest
from workers.compression.coding.byte_stream import varint

# Longer stretches between tensors are coded as blocks of their own, so that the skeleton stays small.
_LONG_GAP = 1 << 16
_MAX_SPANS = MAX_SKELETON_BYTES // _LONG_GAP // 2


@dataclass(frozen=True)
class Packed:
    """Sizes of a file and its archive in bytes."""

    original: int
    archive: int


def pack(source: Path, target: Path) -> Packed:
    """Writes the archive of a file; any file will do, models are coded best.

    Args:
        source: The artifact.
        target: Where its archive is written.
    """
    size = source.stat().st_size
    whole = _forest(source, size)
    pieces = [Span(0, size, 1)] if whole else list(_pieces(tensor_spans(source), size))
    digest = xxhash.xxh3_128()
    with source.open("rb") as file, target.open("wb") as made:
        made.write(head(size))
        plan = _plan(file, pieces, size)
        entries = [_write(made, (*codecs.encode(plan, 1), len(plan)))]
        file.seek(0)
        while content := file.read(PIECE_BYTES):
            digest.update(content)
        entries.extend(_write(made, found) for found in ([whole] if whole else _blocks(file, pieces)))
        made.write(tail(entries, digest.digest()))
        return Packed(size, made.tell())


def _forest(source: Path, size: int) -> Block | None:
    """The whole file as one block if it holds a forest."""
    if size > forest.MAX_BYTES:
        return None
    with source.open("rb") as file:
        coded = forest.encode(file)
    return None if coded is None else (codecs.Codec.TREES, coded, size)


def _write(made: BinaryIO, found: Block) -> Entry:
    written, entry = block(*found)
    made.write(written)
    return entry


def _blocks(file: BinaryIO, pieces: list[Span]) -> Iterator[Block]:
    """The tensors in order, those together that are smaller so."""
    position = 0
    while position < len(pieces):
        group = best_group(file, pieces[position : position + MOST_PIECES])
        if group is not None:
            yield group.block
            position += group.pieces
            continue
        span = pieces[position]
        file.seek(span.start)
        for first in range(span.start, span.end, PIECE_BYTES):
            content = file.read(min(PIECE_BYTES, span.end - first))
            yield (*codecs.encode(content, span.width), len(content))
        position += 1


def _pieces(spans: list[Span], size: int) -> Iterator[Span]:
    """What gets blocks of its own: tensors, the largest of them if there are very many, and long gaps."""
    if len(spans) > _MAX_SPANS:
        spans = sorted(sorted(spans, key=lambda span: span.start - span.end)[:_MAX_SPANS], key=lambda span: span.start)
    position = 0
    for span in [*spans, Span(size, size, 1)]:
        if span.start - position > _LONG_GAP:
            yield Span(position, span.start, 1)
        if span.end > span.start:
            yield span
        position = span.end


def _plan(file: BinaryIO, pieces: list[Span], size: int) -> bytes:
    """Count of pieces, then for each the bytes of skeleton before it and its own size, then the skeleton."""
    numbers, skeleton, position = [varint(len(pieces))], [], 0
    for span in pieces:
        file.seek(position)
        skeleton.append(file.read(span.start - position))
        numbers += [varint(span.start - position), varint(span.end - span.start)]
        position = span.end
    file.seek(position)
    skeleton.append(file.read(size - position))
    return b"".join([*numbers, *skeleton])
