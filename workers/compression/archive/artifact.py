"""The archive beside a saved artifact, unpacked again before it is handed out."""

import hashlib
from pathlib import Path

from workers.compression.archive.packing import pack
from workers.compression.archive.unpacking import unpack
from workers.compression.specs.errors import InvalidResult
from workers.compression.specs.messages import OUTPUT_FOLDER, ExtraFile


def archive_of(artifact: Path, load: str) -> ExtraFile:
    """Archives a saved model file in its own folder.

    Args:
        artifact: The file as the user gets it.
        load: The snippet that opens it.

    Raises:
        InvalidResult: What was packed does not unpack to the same bytes.
    """
    archive = artifact.with_name(artifact.name + ".prsz")
    pack(artifact, archive)
    again = artifact.with_name(artifact.name + ".again")
    unpack(archive, again)
    if _digest(again) != _digest(artifact):
        raise InvalidResult("The archive does not unpack to the model it was made of.", reason="archive_differs")
    again.unlink()
    return ExtraFile(
        path=f"{OUTPUT_FOLDER}/{archive.name}",
        name=archive.name,
        kind="archive",
        format="prsz",
        load=f"# Gives back {artifact.name}: pressroom unpack {archive.name} --output {artifact.name}\n{load}",
    )


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
