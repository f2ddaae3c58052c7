"""Which names an archive's entries may bear."""

import unicodedata

from workers.compression.specs.containers.limits import ArchiveLimits, Refusals

_INVISIBLE = ("Cc", "Cf", "Cs")
NESTED_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar", ".zst")


def refuse_entry(name: str, why: str, refusals: Refusals) -> Exception:
    """The error for one bad entry; the name is shown escaped and shortened."""
    return refusals.unsafe(f"Archive entry {ascii(name)[:120]} {why}.", reason="archive_entry_refused")


class EntryNames:
    """Checks entry names one by one: relative, plain, NFC, unique whatever the case, no file below a file.

    Two names that differ only by case, or by Unicode composition, would be one file on some machines and two on
    others, so an archive could be shown to us in one way and to the user's runtime in another.
    """

    def __init__(self, limits: ArchiveLimits, refusals: Refusals) -> None:
        self._limits = limits
        self._refusals = refusals
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def add(self, name: str, *, folder: bool = False) -> None:
        """Raises the ``unsafe`` refusal (``archive_entry_refused``) if ``name`` may not stand in the archive."""
        plain = name.rstrip("/") if folder else name
        why = self._fault(plain)
        if why is not None:
            raise refuse_entry(name, why, self._refusals)
        key = plain.casefold()
        parents = {key[:index] for index, character in enumerate(key) if character == "/"}
        clash = key in self._files or (not folder and key in self._folders) or not parents.isdisjoint(self._files)
        if clash:
            raise refuse_entry(name, "stands in the archive more than once", self._refusals)
        self._folders |= parents
        (self._folders if folder else self._files).add(key)

    def _fault(self, name: str) -> str | None:
        parts = name.split("/")
        depth = self._limits.max_depth
        faults = {
            "is not a plain relative path": any(part in ("", ".", "..") for part in parts),
            "holds a backslash or a drive letter": "\\" in name or ":" in parts[0],
            "holds control or invisible characters": any(unicodedata.category(c) in _INVISIBLE for c in name),
            "is not in Unicode normal form C": unicodedata.normalize("NFC", name) != name,
            f"lies deeper than {depth} folders": len(parts) > depth,
            "is longer than 255 bytes": any(len(part.encode(errors="replace")) > 255 for part in parts),
        }
        return next((why for why, holds in faults.items() if holds), None)


def is_nested_archive(name: str, head: bytes) -> bool:
    """Whether an entry is an archive itself, by its name or by its first 512 bytes."""
    return (
        name.lower().endswith(NESTED_ARCHIVE_SUFFIXES)
        or head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"7z\xbc\xaf", b"Rar!"))
        or head[257:262] == b"ustar"
    )
