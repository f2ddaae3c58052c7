"""What a hostile upload is: bytes made on the spot, and the answers that are right for them.

No case does harm. Where a file carries a payload, all that payload can do is create the marker file it is given.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

Kind = Literal["model", "dataset"]
Content = Callable[[Path], bytes]

STATUS_BY_CODE = {
    "unsupported_format": 415,
    "too_large": 413,
    "unsafe_model": 422,
    "invalid_model": 422,
    "invalid_dataset": 422,
}
READY = "ready"
"""Stands among the codes of a case that may be accepted, as long as a job on it ends in a truthful state."""


@dataclass(frozen=True)
class Case:
    """One upload and the refusals that are true of it.

    Args:
        name: ``format-what_is_wrong``.
        kind: Where it is uploaded.
        content: Makes the bytes, given the path of the marker a payload would touch.
        codes: Problem codes that are right; ``ready`` alone marks an accepted control.
        reasons: Globs of finer words; empty allows any.
        filename: Name it is uploaded under.
    """

    name: str
    kind: Kind
    content: Content
    codes: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    filename: str = "upload.bin"

    @property
    def control(self) -> bool:
        """Whether this is a good file that must be accepted."""
        return self.codes == (READY,)

    def build(self, folder: Path) -> Path:
        """Writes the file into ``folder``; its payload, if any, points to ``markers/<name>`` beside it."""
        markers = folder / "markers"
        markers.mkdir(exist_ok=True)
        path = folder / f"{self.name}{Path(self.filename).suffix}"
        path.write_bytes(self.content(markers / self.name))
        return path

    def allows(self, status: int, code: str, reason: str | None) -> bool:
        """Whether a refusal with these words is a right one."""
        if code not in self.codes or STATUS_BY_CODE[code] != status:
            return False
        return not self.reasons or any(fnmatchcase(reason or "", glob) for glob in self.reasons)


@dataclass
class Catalogue:
    """The cases of one format, gathered by decorators over the functions that make their bytes."""

    format: str
    kind: Kind
    filename: str
    cases: list[Case] = field(default_factory=list)

    def refused(self, *codes: str, reason: str = "", filename: str | None = None) -> Callable[[Content], Content]:
        """The decorated content must be turned down with one of ``codes`` and a reason of ``reason`` (globs, ``|``)."""
        reasons = tuple(reason.split("|")) if reason else ()

        def register(content: Content) -> Content:
            self.add(content.__name__, content, codes, reasons, filename)
            return content

        return register

    def accepted(self, filename: str | None = None) -> Callable[[Content], Content]:
        """The decorated content is harmless and must be taken."""
        return self.refused(READY, filename=filename)

    def add(
        self,
        name: str,
        content: Content,
        codes: tuple[str, ...],
        reasons: tuple[str, ...] = (),
        filename: str | None = None,
    ) -> None:
        """Adds one case by hand."""
        label = f"{self.format}-{name.strip('_')}"
        self.cases.append(Case(label, self.kind, content, codes, reasons, filename or self.filename))
