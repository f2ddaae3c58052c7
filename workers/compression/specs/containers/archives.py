"""Our own unpacking of ZIP and TAR archives, and the deterministic ZIP that directory-like clean forms are kept in.

The standard library's ``extractall`` is not used: its filters were bypassed before (CVE-2025-4517 and siblings), they
allow links, and ``zipfile`` silently renames what it does not like. Here an entry is a regular file with a plain name
or the whole archive is refused.
"""

import gzip
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

from workers.compression.specs.containers.entry_names import EntryNames, is_nested_archive, refuse_entry
from workers.compression.specs.containers.limits import ARCHIVE_LIMITS, MODEL_REFUSALS, ArchiveLimits, Refusals
from workers.compression.specs.containers.zip_rules import checked_entries
from workers.compression.specs.errors import TooLarge

_CHUNK = 1 << 20
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_MAX_HEADER_READ = 16 << 20
BROKEN_ARCHIVE: tuple[type[Exception], ...] = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    RecursionError,
)
"""What the standard library raises on damaged archives."""


def archive_kind(path: Path) -> Literal["zip", "tar", "tar.gz"] | None:
    """What kind of archive the file is by its content, if it is one."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head[257:262] == b"ustar":
        return "tar"
    if not head.startswith(b"\x1f\x8b"):
        return None
    try:
        with gzip.open(path) as stream:
            return "tar.gz" if stream.read(512)[257:262] == b"ustar" else None
    except (OSError, EOFError, zlib.error):
        return None


def extract(
    path: Path, folder: Path, limits: ArchiveLimits = ARCHIVE_LIMITS, refusals: Refusals = MODEL_REFUSALS
) -> Path:
    """Unpacks a ZIP, TAR or TAR.GZ into ``folder`` (created; must not exist or be empty).

    Returns:
        The content's root: ``folder``, or the one directory in it that everything lies in.

    Raises:
        TooLarge: ``archive_bomb``.
        EngineError: ``refusals.unsafe`` with ``archive_entry_refused``; ``refusals.invalid`` with ``archive_invalid``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind = archive_kind(path)
    try:
        if kind == "zip":
            _extract_zip(path, folder, limits, refusals)
        elif kind in ("tar", "tar.gz"):
            _extract_tar(path, folder, limits, refusals)
        else:
            raise refusals.invalid("The file is neither a ZIP nor a TAR archive.", reason="archive_invalid")
    except BROKEN_ARCHIVE as error:
        raise refusals.invalid("The archive is damaged and cannot be unpacked.", reason="archive_invalid") from error
    return _root(folder)


def tar_files(
    path: Path, limits: ArchiveLimits = ARCHIVE_LIMITS, refusals: Refusals = MODEL_REFUSALS
) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each file in a TAR or TAR.GZ, rules applied, in order and one at a time."""
    with path.open("rb") as raw:
        stream = _bounded(raw, path, limits)
        yield from _tar_members(stream, limits, refusals)
        # On to the end, where gzip compares its checksum.
        while stream.read(_CHUNK):
            pass


def _tar_members(stream: IO[bytes], limits: ArchiveLimits, refusals: Refusals) -> Iterator[tuple[str, IO[bytes]]]:
    names = EntryNames(limits, refusals)
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for count, member in enumerate(_members(archive)):
            if count >= limits.max_entries:
                raise TooLarge(f"The archive has more than {limits.max_entries} entries.", reason="archive_bomb")
            names.add(member.name, folder=member.isdir())
            if member.isdir():
                continue
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
                raise refuse_entry(member.name, "is a link or a device, not a regular file", refusals)
            content = archive.extractfile(member)
            if content is None:
                raise refuse_entry(member.name, "has no content", refusals)
            yield member.name, content


def stored_zip(folder: Path, path: Path) -> None:
    """Writes every file below ``folder`` into a ZIP of uncompressed members: same files, same bytes.

    Uncompressed, so that members can be mapped into memory and de-duplicated where they lie.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(found for found in folder.rglob("*") if found.is_file()):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), _ZIP_DATE)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            entry.file_size = file.stat().st_size
            with file.open("rb") as source, archive.open(entry, "w") as sink:
                shutil.copyfileobj(source, sink, _CHUNK)


def _extract_zip(path: Path, folder: Path, limits: ArchiveLimits, refusals: Refusals) -> None:
    written = 0
    with zipfile.ZipFile(path) as archive:
        for entry in checked_entries(path, limits, refusals):
            with archive.open(entry) as content:
                written += _write(content, folder, entry.filename, limits.max_bytes - written, refusals)


def _extract_tar(path: Path, folder: Path, limits: ArchiveLimits, refusals: Refusals) -> None:
    written = 0
    for name, content in tar_files(path, limits, refusals):
        written += _write(content, folder, name, limits.max_bytes - written, refusals)


def _write(content: IO[bytes], folder: Path, name: str, room: int, refusals: Refusals) -> int:
    """Copies one entry to a new file, counting what really comes out; returns the count."""
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with target.open("xb") as sink:
        while chunk := content.read(_CHUNK):
            if written == 0 and is_nested_archive(name, chunk[:512]):
                raise refuse_entry(name, "is itself an archive", refusals)
            written += len(chunk)
            if written > room:
                raise TooLarge("The archive unpacks to more bytes than allowed.", reason="archive_bomb")
            sink.write(chunk)
    return written


def _root(folder: Path) -> Path:
    found = list(folder.iterdir())
    return found[0] if len(found) == 1 and found[0].is_dir() else folder


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Members in order; a negative size would lead the reader back to where it was, for ever (CVE-2025-8194)."""
    last = -1
    while (member := archive.next()) is not None:
        if member.size < 0 or member.offset_data <= last:
            raise tarfile.ReadError("member sizes run backwards")
        last = member.offset_data
        yield member


class _BoundedReader:
    """A readable, seekable stream that ends in ``TooLarge`` where a bomb would begin.

    TAR headers may announce extended headers of any size, which the standard library reads in one piece; so single
    reads are bounded too.
    """

    def __init__(self, stream: IO[bytes], end: int) -> None:
        self._stream = stream
        self._end = end

    def read(self, size: int = -1) -> bytes:
        if size > _MAX_HEADER_READ or size < 0:
            raise TooLarge("The archive holds an oversized header.", reason="archive_bomb")
        data = self._stream.read(size)
        self._check(self._stream.tell())
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0:
            self._check(offset)
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def _check(self, position: int) -> None:
        if position > self._end:
            raise TooLarge("The archive unpacks to more bytes than allowed.", reason="archive_bomb")


def _bounded(raw: IO[bytes], path: Path, limits: ArchiveLimits) -> IO[bytes]:
    size = path.stat().st_size
    if raw.read(2) != b"\x1f\x8b":
        raw.seek(0)
        return _BoundedReader(raw, max(size, limits.ratio_free_bytes))  # type: ignore[return-value]  # as tarfile needs
    raw.seek(0)
    end = min(limits.max_bytes, max(limits.ratio_free_bytes, limits.max_ratio * size))
    return _BoundedReader(gzip.GzipFile(fileobj=raw), end)  # type: ignore[return-value,arg-type]  # as tarfile needs
