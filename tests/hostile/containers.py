"""ZIP and tar files written by hand, so that they can say what the libraries refuse to write."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass

LINK_TYPES = {"soft": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}


def zip_of(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """An honest archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return out.getvalue()


def tar_of(
    members: dict[str, bytes], links: dict[str, tuple[str, str]] | None = None, types: dict[str, bytes] | None = None
) -> bytes:
    """A gzipped tar with regular members, links (``soft`` or ``hard``) and members of odd types."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, (kind, target) in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = LINK_TYPES[kind], target
            archive.addfile(info)
        for name, kind in (types or {}).items():
            info = tarfile.TarInfo(name)
            info.type = kind
            archive.addfile(info)
    return gzip.compress(out.getvalue(), mtime=0)


def deflated_zeros(mebibytes: int) -> bytes:
    """A raw deflate stream that unfolds into so many MiB of zeros, put together from one compressed MiB."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = squeeze.compress(bytes(1 << 20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return block * mebibytes + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def gzipped_zeros(mebibytes: int) -> bytes:
    """Gzip members in a row that unfold into so many MiB of zeros."""
    return gzip.compress(bytes(1 << 20), mtime=0) * mebibytes


@dataclass
class Entry:
    """One ZIP member; every field of its two headers can be made to lie.

    ``None`` stands for the truth.
    """

    name: bytes
    content: bytes = b""
    method: int = 0
    local_name: bytes | None = None
    size: int | None = None
    compressed_size: int | None = None
    crc: int | None = None
    flags: int = 0
    offset: int | None = None
    external_attributes: int = 0o100644 << 16
    extra: bytes = b""
    deflated: bytes | None = None
    """Compressed form of a member too large to hold; goes with ``size`` and ``crc``."""

    def packed(self) -> bytes:
        """The member's stored form."""
        if self.deflated is not None:
            return self.deflated
        if self.method != zipfile.ZIP_DEFLATED:
            return self.content
        squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
        return squeeze.compress(self.content) + squeeze.flush()

    def fields(self) -> tuple[int, int, int]:
        """CRC, compressed size and size as the headers tell them."""
        crc = zlib.crc32(self.content) if self.crc is None else self.crc
        compressed = len(self.packed()) if self.compressed_size is None else self.compressed_size
        return crc, compressed, len(self.content) if self.size is None else self.size


def forged_zip(entries: list[Entry], *, before: bytes = b"", after: bytes = b"", count: int | None = None) -> bytes:
    """An archive of ``entries`` exactly as they say; ``before`` is prepended without correcting the offsets."""
    body, directory = bytearray(), bytearray()
    for entry in entries:
        crc, compressed, size = entry.fields()
        start = len(body) if entry.offset is None else entry.offset
        local = entry.local_name or entry.name
        if entry.offset is None:
            header = (b"PK\x03\x04", 20, entry.flags, entry.method, 0, 0x21, crc, compressed, size)
            body += struct.pack("<4sHHHHHIIIHH", *header, len(local), len(entry.extra))
            body += local + entry.extra + entry.packed()
        header = (b"PK\x01\x02", 0x0314, 20, entry.flags, entry.method, 0, 0x21, crc, compressed, size)
        lengths = (len(entry.name), len(entry.extra), 0, 0, 0, entry.external_attributes, start)
        directory += struct.pack("<4sHHHHHHIIIHHHHHII", *header, *lengths) + entry.name + entry.extra
    total = len(entries) if count is None else count
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, total, total, len(directory), len(body), len(after))
    return before + bytes(body) + bytes(directory) + end + after
