"""Artifacts of the service."""

import hashlib
import os
import time
from pathlib import Path

import httpx

from app.client.connection import Connection, backoff_seconds
from app.client.errors import ConnectionFailed, DigestMismatch
from app.client.objects import Artifact

SILENCE_SECONDS = 30.0


class Artifacts:
    """Show and download artifacts."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, artifact_id: str) -> Artifact:
        """One artifact's description."""
        return Artifact.model_validate(self._connection.get(f"/v1/artifacts/{artifact_id}"))

    def download(self, artifact_id: str, destination: str | os.PathLike[str] = ".") -> Path:
        """Writes an artifact to disk; resumes a broken transfer and checks the SHA-256 before the file gets its name.

        Args:
            artifact_id: Which artifact.
            destination: A file name, or an existing directory that takes the artifact's own name.

        Returns:
            The file. If it is already there with the right content, nothing is transferred.

        Raises:
            DigestMismatch: The bytes are not the announced ones; the partial file is gone.
        """
        artifact = self.get(artifact_id)
        target = Path(destination)
        if target.is_dir():
            target = target / Path(artifact.name).name
        if target.is_file() and _sha256(target) == artifact.sha256:
            return target
        # Named after the content, so that what is resumed is always the same bytes.
        partial = target.with_name(f"{target.name}.{artifact.sha256[:16]}.part")
        self._transfer(artifact, partial)
        if _sha256(partial) != artifact.sha256:
            partial.unlink()
            raise DigestMismatch(f"{artifact_id}: the downloaded bytes do not have the announced SHA-256")
        partial.replace(target)
        return target

    def _transfer(self, artifact: Artifact, partial: Path) -> None:
        failures = 0
        while _size(partial) < artifact.size_bytes:
            before = _size(partial)
            try:
                self._append(artifact, partial)
            except httpx.TransportError as failure:
                failures = failures + 1 if _size(partial) == before else 1
                if failures > self._connection.retries:
                    raise ConnectionFailed(f"lost the download of {artifact.id}: {failure}") from failure
                time.sleep(backoff_seconds(failures))
        partial.touch()

    def _append(self, artifact: Artifact, partial: Path) -> None:
        have = _size(partial)
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        path = f"/v1/artifacts/{artifact.id}/content"
        with self._connection.stream(path, headers=headers, read_seconds=SILENCE_SECONDS) as response:
            # 200 instead of 206 means that the whole content comes, not the missing rest.
            mode = "ab" if response.status_code == httpx.codes.PARTIAL_CONTENT else "wb"
            with partial.open(mode) as out:
                # In the pieces that arrive: with a block size, a broken transfer would lose the block being filled.
                for block in response.iter_bytes():
                    out.write(block)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
