"""The zip files that torch writes, read without torch and held to exactly the layout torch gives them.

Two readers that disagree about a zip (prepended bytes, a second directory, names differing in case) would let one
check what the other never loads; in this strict layout there is nothing to disagree about.
"""

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workers.compression.specs.containers.limits import CHECKPOINT_LIMITS
from workers.compression.specs.containers.zip_rules import checked_entries
from workers.compression.specs.errors import InvalidModel, TooLarge

_LOCAL_HEADER: Final = struct.Struct("<4s5H3L2H")
_LONGEST_DESCRIPTOR: Final = 24
_ALLOWED_FLAGS: Final = 0x0808  # UTF-8 names, sizes in a data descriptor


@dataclass(frozen=True)
class Member:
    """Bytes of one member, which is stored as it is."""

    offset: int
    size: int


@dataclass(frozen=True)
class TorchArchive:
    """Members of an archive whose layout was checked.

    Args:
        path: The file.
        root: Folder that every member lies in.
        members: Where each member's bytes lie, by name below the root.
        reason: Finer word of the errors that reading raises.
    """

    path: Path
    root: str
    members: dict[str, Member]
    reason: str

    def read(self, name: str, limit: int) -> bytes:
        """Content of a member of at most ``limit`` bytes."""
        member = self.members.get(name)
        if member is None:
            raise InvalidModel(f"The archive lacks {name}.", reason=self.reason)
        if member.size > limit:
            raise TooLarge(f"Member {name} has {member.size} bytes; {limit} are allowed.", reason=self.reason)
        with self.path.open("rb") as file:
            file.seek(member.offset)
            return file.read(member.size)


def open_torch_archive(path: Path, reason: str) -> TorchArchive:
    """Checks the layout of a zip that torch wrote.

    Raises:
        EngineError: As ``zip_rules.checked_entries``; ``InvalidModel`` if some byte or member is not where torch
            would have put it, or is compressed.
    """
    entries = sorted(checked_entries(path, CHECKPOINT_LIMITS), key=lambda entry: entry.header_offset)
    if not entries:
        raise InvalidModel("The archive is empty.", reason=reason)
    places = []
    end = 0
    with path.open("rb") as file:
        for entry in entries:
            _check_stored(entry, reason)
            file.seek(entry.header_offset)
            end = _end_of(entry, file.read(_LOCAL_HEADER.size), end, reason)
            places.append((entry.filename, Member(end - entry.file_size, entry.file_size)))
    with zipfile.ZipFile(path) as archive:
        if archive.comment or not end <= archive.start_dir <= end + _LONGEST_DESCRIPTOR:
            raise InvalidModel("The archive has bytes outside its members.", reason=reason)
    return _below_one_root(path, places, reason)


def _check_stored(entry: zipfile.ZipInfo, reason: str) -> None:
    if entry.compress_type != zipfile.ZIP_STORED:
        raise InvalidModel(
            f"Member {entry.filename[:100]!r} is compressed; torch stores its members as they are.", reason=reason
        )


def _end_of(entry: zipfile.ZipInfo, header: bytes, previous_end: int, reason: str) -> int:
    fields = _LOCAL_HEADER.unpack(header)
    flags, method, name_length, extra_length = fields[2], fields[3], fields[9], fields[10]
    latest = previous_end + _LONGEST_DESCRIPTOR if previous_end else 0
    if entry.header_offset > latest or method != zipfile.ZIP_STORED:
        raise InvalidModel(f"Member {entry.filename[:100]!r} is not where it should be.", reason=reason)
    if (flags | entry.flag_bits) & ~_ALLOWED_FLAGS:
        raise InvalidModel(f"Member {entry.filename[:100]!r} is stored in an unusual way.", reason=reason)
    return entry.header_offset + _LOCAL_HEADER.size + int(name_length) + int(extra_length) + entry.file_size


def _below_one_root(path: Path, places: list[tuple[str, Member]], reason: str) -> TorchArchive:
    root = places[0][0].partition("/")[0]
    members = {}
    for full_name, member in places:
        folder, _, name = full_name.partition("/")
        if folder != root or not name:
            raise InvalidModel(f"Member {full_name[:100]!r} lies outside the archive's folder.", reason=reason)
        members[name] = member
    return TorchArchive(path, root, members, reason)
