"""Opens archives: every size is checked before anything of it is allocated, every byte before it is believed."""

import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import xxhash

from workers.compression.archive.container import (
    END_MAGIC,
    FOOTER,
    MAX_SKELETON_BYTES,
    PIECE_BYTES,
    Entry,
    read_block,
    read_exactly,
    read_head,
    tail,
)
from workers.compression.archive.trees import forest
from workers.compression.coding.byte_stream import Reader, broken
from workers.compression.specs.errors import OutOfDisk, TooLarge

MAX_BYTES = 64 << 30


def unpack(archive: Path, target: Path, max_bytes: int = MAX_BYTES) -> int:
    """Writes the file that an archive holds, bit for bit; nothing is left behind if it cannot.

    Args:
        max_bytes: Refuse archives of larger files.

    Returns:
        Bytes written.

    Raises:
        UnsupportedFormat: It is no archive, or one of a later version.
        TooLarge: It states more than ``max_bytes``.
        OutOfDisk: There is less room than it states.
        InvalidModel: It is damaged or malformed.
    """
    with archive.open("rb") as file:
        size = read_head(file)
        if size > max_bytes:
            raise TooLarge(
                f"The archive holds a file of {size:,} bytes; at most {max_bytes:,} are allowed here.",
                reason="archive_bomb",
            )
        if size > shutil.disk_usage(target.absolute().parent).free:
            raise OutOfDisk(f"The archive holds a file of {size:,} bytes, more than there is room for.")
        partial = target.with_name(target.name + ".part")
        try:
            with partial.open("wb") as made:
                _unpack(file, size, made)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    return size


def _unpack(file: BinaryIO, size: int, made: BinaryIO) -> None:
    entries: list[Entry] = []
    digest = xxhash.xxh3_128()
    for content in _contents(file, size, entries):
        digest.update(content)
        made.write(content)
    found = file.read(FOOTER.size + 20 * len(entries) + 64)
    if bytes([0xFF]) + found != tail(entries, digest.digest()):
        raise broken("The checksum of the file, or the index, is wrong")


def _contents(file: BinaryIO, size: int, entries: list[Entry]) -> Iterator[bytes | memoryview]:
    """The decoded file in order; every block is added to ``entries``."""
    plan = Reader(_block(file, MAX_SKELETON_BYTES, 0, entries))
    count = plan.varint(plan.left)
    pieces = [(plan.varint(size), plan.varint(size)) for _ in range(count)]
    skeleton = sum(before for before, _ in pieces)
    if skeleton > plan.left or plan.left + sum(length for _, length in pieces) != size:
        raise broken("Its plan does not add up to the stated size")
    tensors = _Tensors(file, sum(length for _, length in pieces), entries)
    for before, length in pieces:
        yield plan.take(before)
        yield from tensors.take(length)
    yield plan.rest()
    if read_block(file, 0) is not None:
        raise broken("There are more blocks than its plan has")


class _Tensors:
    """What the blocks after the plan decode to, as one stream."""

    def __init__(self, file: BinaryIO, size: int, entries: list[Entry]) -> None:
        self._file = file
        self._left = size
        self._entries = entries
        self._content = memoryview(b"")

    def take(self, size: int) -> Iterator[memoryview]:
        """The next ``size`` bytes, in parts."""
        while size:
            if not self._content:
                limits = min(self._left, PIECE_BYTES), min(self._left, forest.MAX_BYTES)
                self._content = memoryview(_block(self._file, *limits, self._entries))
                self._left -= len(self._content)
                if not self._content:
                    raise broken("A block is empty")
            part, self._content = self._content[:size], self._content[size:]
            size -= len(part)
            yield part


def _block(file: BinaryIO, limit: int, forest_limit: int, entries: list[Entry]) -> bytes | memoryview:
    found = read_block(file, limit, forest_limit)
    if found is None:
        raise broken("It ends before its plan does")
    content, entry = found
    entries.append(entry)
    return content


def read_index(file: BinaryIO) -> list[Entry]:
    """The index at the end of an archive, for reading single blocks of it.

    Raises:
        InvalidModel: It is missing, damaged, or does not match the size of the archive.
    """
    size = file.seek(0, 2)
    if size < FOOTER.size:
        raise broken("It ends too early")
    file.seek(size - FOOTER.size)
    _, length, checksum, magic = FOOTER.unpack(read_exactly(file, FOOTER.size))
    if magic != END_MAGIC or length > size - FOOTER.size:
        raise broken("Its end is missing")
    file.seek(size - FOOTER.size - length)
    index = read_exactly(file, length)
    if zlib.crc32(index) != checksum:
        raise broken("The checksum of its index is wrong")
    reader = Reader(index)
    count = reader.varint(reader.left)
    most = max(MAX_SKELETON_BYTES, forest.MAX_BYTES)
    entries = [Entry(reader.varint(size), reader.varint(most)) for _ in range(count)]
    first = size - FOOTER.size - length - 1 - sum(entry.coded for entry in entries)
    if reader.left or first < 6:
        raise broken("Its index does not match its size")
    return entries
