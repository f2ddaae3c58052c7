"""The rules for every ZIP file that is opened, whatever it holds: checked on its directory, before any content."""

import stat
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

from workers.compression.specs.containers.entry_names import EntryNames, refuse_entry
from workers.compression.specs.containers.limits import ARCHIVE_LIMITS, MODEL_REFUSALS, ArchiveLimits, Refusals
from workers.compression.specs.errors import TooLarge

_END = b"PK\x05\x06"
_END64_LOCATOR = b"PK\x06\x07"
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def checked_entries(
    path: Path, limits: ArchiveLimits = ARCHIVE_LIMITS, refusals: Refusals = MODEL_REFUSALS
) -> list[zipfile.ZipInfo]:
    """The file entries (no folders) of a ZIP that keeps the rules, in directory order.

    Raises:
        TooLarge: Too many entries, too many bytes, or a declared compression ratio of a bomb (``archive_bomb``).
        EngineError: ``refusals.unsafe`` for links, bad or doubled names, encryption, overlapping entries;
            ``refusals.invalid`` for a broken file (``archive_invalid``).
    """
    with path.open("rb") as file:
        size, stated = _check_directory_size(file, limits, refusals)
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeError, struct.error) as error:
            raise refusals.invalid("The ZIP file's directory cannot be read.", reason="archive_invalid") from error
        check_sizes(entries, size, limits)
        if len(entries) != stated:
            raise refusals.invalid("The ZIP file's directory miscounts its entries.", reason="archive_invalid")
        names = EntryNames(limits, refusals)
        for entry in entries:
            _check_entry(entry, names, refusals)
        _check_offsets(file, entries, refusals)
    return [entry for entry in entries if not entry.is_dir()]


def _check_directory_size(file: BinaryIO, limits: ArchiveLimits, refusals: Refusals) -> tuple[int, int]:
    """Bounds the directory, which ``zipfile`` reads into memory at once; gives file size and stated entry count."""
    size = file.seek(0, 2)
    tail_start = max(0, size - 65_557 - 20)
    file.seek(tail_start)
    tail = file.read()
    end = tail.rfind(_END)
    if end < 0 or len(tail) - end < 22:
        raise refusals.invalid("The ZIP file is truncated: its directory is missing.", reason="archive_invalid")
    directory_size = int.from_bytes(tail[end + 12 : end + 16], "little")
    stated = int.from_bytes(tail[end + 10 : end + 12], "little")
    if end >= 20 and tail[end - 20 : end - 16] == _END64_LOCATOR:
        file.seek(min(int.from_bytes(tail[end - 12 : end - 4], "little"), size))
        record = file.read(56)
        directory_size = int.from_bytes(record[40:48], "little")
        stated = int.from_bytes(record[32:40], "little")
    if directory_size > limits.max_directory_bytes:
        raise TooLarge("The ZIP file's directory is too large.", reason="archive_bomb")
    return size, stated


def _check_entry(entry: zipfile.ZipInfo, names: EntryNames, refusals: Refusals) -> None:
    if not entry.filename:
        raise refuse_entry(entry.orig_filename, "has no name", refusals)
    names.add(entry.orig_filename, folder=entry.is_dir())
    if entry.flag_bits & _ENCRYPTED:
        raise refuse_entry(entry.filename, "is encrypted", refusals)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if entry.is_dir() else stat.S_IFREG):
        raise refuse_entry(entry.filename, "is a link or a device, not a regular file", refusals)
    if entry.compress_type not in _METHODS:
        raise refuse_entry(entry.filename, "uses a compression method other than deflate", refusals)
    if entry.compress_type == zipfile.ZIP_STORED and entry.file_size != entry.compress_size:
        raise refuse_entry(entry.filename, "states two different sizes", refusals)
    if entry.is_dir() and entry.file_size:
        raise refuse_entry(entry.filename, "is a folder with content", refusals)


def check_sizes(entries: list[zipfile.ZipInfo], archive_size: int, limits: ArchiveLimits) -> None:
    """Raises ``TooLarge`` (``archive_bomb``) for entries that are too many or unpack to too much."""
    if len(entries) > limits.max_entries:
        raise TooLarge(f"The archive has more than {limits.max_entries} entries.", reason="archive_bomb")
    total = sum(entry.file_size for entry in entries)
    if total > limits.max_bytes:
        raise TooLarge(f"The archive unpacks to {total} bytes, more than {limits.max_bytes}.", reason="archive_bomb")
    if total > limits.ratio_free_bytes and total > limits.max_ratio * archive_size:
        raise TooLarge("The archive unpacks to more than 100 times its size.", reason="archive_bomb")
    for entry in entries:
        if entry.file_size > limits.ratio_free_bytes and entry.file_size > limits.max_ratio * entry.compress_size:
            name = ascii(entry.filename)[:120]
            raise TooLarge(f"Archive entry {name} unpacks to more than 100 times its size.", reason="archive_bomb")


def _check_offsets(file: BinaryIO, entries: list[zipfile.ZipInfo], refusals: Refusals) -> None:
    """Every entry has bytes of its own and the same name in its local header as in the directory; nothing precedes."""
    if entries and min(entry.header_offset for entry in entries) != 0:
        raise refusals.unsafe(
            "Something else stands before the ZIP file's first entry.", reason="archive_entry_refused"
        )
    end = 0
    for entry in sorted(entries, key=lambda found: found.header_offset):
        if entry.header_offset < end:
            raise refuse_entry(entry.filename, "shares bytes with another entry", refusals)
        file.seek(entry.header_offset)
        raw = file.read(_LOCAL_HEADER.size)
        if len(raw) < _LOCAL_HEADER.size or not raw.startswith(b"PK\x03\x04"):
            raise refusals.invalid("A ZIP entry has no local header.", reason="archive_invalid")
        fields = _LOCAL_HEADER.unpack(raw)
        name_length, extra_length = fields[9], fields[10]
        encoding = "utf-8" if entry.flag_bits & 0x800 else "cp437"
        if file.read(name_length) != entry.orig_filename.encode(encoding, "replace"):
            raise refuse_entry(entry.filename, "has another name in its own header", refusals)
        end = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length + entry.compress_size
