"""Blobs as responses: ranges, validators, safe file names."""

import base64
import re
from dataclasses import dataclass
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from app.errors import RangeNotSatisfiable
from app.storage import Storage

DOWNLOAD_RESPONSES: dict[int | str, dict[str, object]] = {
    200: {"description": "All bytes.", "content": {"application/octet-stream": {}}},
    206: {"description": "The bytes of the range.", "content": {"application/octet-stream": {}}},
    304: {"description": "The client has these bytes already."},
}

_RANGE = re.compile(r"bytes=(\d{0,20})-(\d{0,20})", re.ASCII)


@dataclass(frozen=True)
class Download:
    """A blob and the name it is saved under."""

    sha256: str
    size_bytes: int
    filename: str

    @property
    def etag(self) -> str:
        """A strong validator: the same hash means the same bytes."""
        return f'"{self.sha256}"'


def download_response(request: Request, storage: Storage, download: Download) -> Response:
    """The blob, or the part of it that ``Range`` asks for (RFC 9110).

    Raises:
        RangeNotSatisfiable: The range lies outside the blob.
    """
    headers = _headers(download)
    if _names(request.headers.get("if-none-match"), download.etag):
        return Response(status_code=304, headers=headers)
    span = _span(request, download)
    start, end = span or (0, download.size_bytes)
    headers["Content-Length"] = str(end - start)
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{download.size_bytes}"
    status = 200 if span is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type="application/octet-stream")
    content = storage.stream(download.sha256, start, end)
    return StreamingResponse(content, status, headers, media_type="application/octet-stream")


def content_disposition(filename: str) -> str:
    """``attachment`` with the name as RFC 6266 wants it: quoted ASCII for old clients, UTF-8 for the others."""
    name = "".join(character for character in filename if character.isprintable() and character not in '/\\"') or "file"
    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _headers(download: Download) -> dict[str, str]:
    digest = base64.b64encode(bytes.fromhex(download.sha256)).decode()
    return {
        "ETag": download.etag,
        "Accept-Ranges": "bytes",
        "Content-Disposition": content_disposition(download.filename),
        "Cache-Control": "private, no-cache",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Repr-Digest": f"sha-256=:{digest}:",
        "X-Content-Type-Options": "nosniff",
    }


def _span(request: Request, download: Download) -> tuple[int, int] | None:
    """The wanted half-open interval; None for everything: no range, one that RFC 9110 says to ignore, or stale."""
    condition = request.headers.get("if-range")
    found = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if found is None or (condition is not None and condition.strip() != download.etag):
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    size = download.size_bytes
    if not first:
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < int(first):
            return None
    if start >= size or end <= start:
        detail = f"The content has {size} bytes; the range lies outside."
        raise RangeNotSatisfiable(detail, headers={"Content-Range": f"bytes */{size}"})
    return start, end


def _names(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    candidates = [candidate.strip().removeprefix("W/") for candidate in header.split(",")]
    return etag in candidates or "*" in candidates
