"""Streams files, and directories as archives, to the service."""

import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from app.client.connection import Connection


def upload(
    connection: Connection,
    path: str,
    source: Path,
    fields: Mapping[str, Any],
    idempotency_key: str | None,
) -> httpx.Response:
    """Posts ``source`` as multipart form data, read from disk as it is sent.

    Args:
        connection: Where to.
        path: The endpoint.
        source: A file, or a directory that is sent as a ZIP.
        fields: Form fields besides the file; None is left out, anything but a string is sent as JSON.
        idempotency_key: Repeats with this key do not upload twice.
    """
    form = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in fields.items()
        if value is not None
    }
    with _as_file(source) as file_path, file_path.open("rb") as content:

        def body() -> dict[str, Any]:
            content.seek(0)
            return {"data": form, "files": {"file": (file_path.name, content, "application/octet-stream")}}

        return connection.request("POST", path, idempotency_key=idempotency_key, body=body)


@contextmanager
def _as_file(source: Path) -> Iterator[Path]:
    if not source.is_dir():
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="pressroom-upload-") as folder:
        archive = Path(folder) / f"{source.resolve().name}.zip"
        _archive(source, archive)
        yield archive


def _archive(source: Path, archive: Path) -> None:
    """Writes the files below ``source``, stored: weights hardly deflate, and the service reads stored members faster.

    Names are sorted and times fixed, so that the same directory gives the same bytes and is uploaded once.
    """
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as target:
        for member in sorted(path for path in source.rglob("*") if path.is_file()):
            info = zipfile.ZipInfo(member.relative_to(source).as_posix())
            with member.open("rb") as content, target.open(info, "w", force_zip64=True) as out:
                while block := content.read(1 << 20):
                    out.write(block)
