"""The container of ``.prsz``: what stands where in the file. ``docs/prsz.md`` is its description.

"PRSZ" version  size of the decoded file
block           the plan: how the skeleton and the tensors alternate, and the skeleton itself
block ...       the tensors, one after the other, at most 16 MiB a block
0xFF            end of blocks
index           per block its coded and decoded size
footer          digest of the decoded file, size and checksum of the index, "ZSRP"
"""

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from workers.compression.archive import codecs
from workers.compression.archive.trees import forest
from workers.compression.coding.byte_stream import Reader, broken, varint
from workers.compression.specs.errors import UnsupportedFormat

MAGIC, END_MAGIC = b"PRSZ", b"ZSRP"
VERSION = 1
END_OF_BLOCKS = 0xFF
PIECE_BYTES = 16 << 20
MAX_SKELETON_BYTES = 64 << 20
MAX_FILE_BYTES = 1 << 46
DIGEST_BYTES = 16
FOOTER = struct.Struct(f"<{DIGEST_BYTES}sII4s")
_MAX_HEAD_BYTES = 16


@dataclass(frozen=True)
class Entry:
    """A block in the index: its bytes in the archive, head and checksum included, and those it decodes to."""

    coded: int
    decoded: int


def block(codec: int, data: bytes, decoded: int) -> tuple[bytes, Entry]:
    """A coded block: codec, decoded size, coded size, data, CRC-32 of all of these."""
    written = b"".join([bytes([codec]), varint(decoded), varint(len(data)), data])
    written += zlib.crc32(written).to_bytes(4, "little")
    return written, Entry(len(written), decoded)


def read_block(file: BinaryIO, limit: int, forest_limit: int = 0) -> tuple[bytes | memoryview, Entry] | None:
    """The next block, decoded and checked; None at the end of blocks.

    Args:
        limit: It may decode to so many bytes; nothing is allocated for one that states more.
        forest_limit: The same for a block that holds a whole forest.
    """
    codec = read_exactly(file, 1)[0]
    if codec == END_OF_BLOCKS:
        return None
    trees = codec == codecs.Codec.TREES
    decoded, first = _read_varint(file, forest_limit if trees else limit)
    coded, second = _read_varint(file, decoded)
    data = read_exactly(file, coded + 4)
    checksum = zlib.crc32(memoryview(data)[:coded], zlib.crc32(bytes([codec]) + first + second))
    if checksum.to_bytes(4, "little") != data[coded:]:
        raise broken("The checksum of a block is wrong")
    taken = memoryview(data)[:coded]
    content = forest.decode(taken, decoded) if trees else codecs.decode(codec, taken, decoded)
    return content, Entry(1 + len(first) + len(second) + coded + 4, decoded)


def head(size: int) -> bytes:
    """The first bytes of an archive of a file of ``size`` bytes."""
    return MAGIC + bytes([VERSION]) + varint(size)


def read_head(file: BinaryIO) -> int:
    """Size of the file that the archive holds.

    Raises:
        UnsupportedFormat: It is no archive, or one of a version this program does not know.
    """
    start = file.read(len(MAGIC) + 1)
    if start[:-1] != MAGIC:
        raise UnsupportedFormat("This is not a .prsz archive.", reason="prsz_magic")
    if start[-1] != VERSION:
        raise UnsupportedFormat(
            f"The archive is of version {start[-1]}; this program reads version {VERSION}.", reason="prsz_version"
        )
    return _read_varint(file, MAX_FILE_BYTES)[0]


def tail(entries: list[Entry], digest: bytes) -> bytes:
    """Index and footer."""
    index = varint(len(entries)) + b"".join(varint(entry.coded) + varint(entry.decoded) for entry in entries)
    return bytes([END_OF_BLOCKS]) + index + FOOTER.pack(digest, len(index), zlib.crc32(index), END_MAGIC)


def read_exactly(file: BinaryIO, size: int) -> bytes:
    """``size`` bytes or an error of ours."""
    data = file.read(size)
    if len(data) != size:
        raise broken("It ends too early")
    return data


def _read_varint(file: BinaryIO, limit: int) -> tuple[int, bytes]:
    """A number and the bytes it is written in."""
    raw = bytearray()
    while len(raw) < _MAX_HEAD_BYTES and (not raw or raw[-1] > 0x7F):
        raw += read_exactly(file, 1)
    return Reader(bytes(raw)).varint(limit), bytes(raw)
