"""An upload on its way to disk: hashed, capped, and gone again unless someone takes it."""

import base64
import binascii
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.types import Receive, Scope

from app.config import Settings
from app.errors import DigestMismatch, InvalidRequest, TooLarge, UnsupportedMediaType
from app.idempotency.fingerprints import UPLOAD_FINGERPRINT_KEY, upload_fingerprint
from app.ids import new_id
from app.multipart import Form, Sink, parse_multipart, require_file
from app.request_bodies import announced_length, patient_chunks

FORM_OVERHEAD_BYTES = 2 << 20
_HEX_LENGTH = 64


@dataclass(frozen=True)
class Upload:
    """A file that arrived whole."""

    path: Path
    filename: str
    sha256: str
    size_bytes: int
    fields: Mapping[str, str]


class HashingSink:
    """Counts and hashes what passes, and refuses more than ``limit`` bytes."""

    def __init__(self, limit: int, file: BinaryIO | None = None) -> None:
        self._limit = limit
        self._file = file
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    async def write(self, piece: bytes) -> None:
        """Takes the next bytes; disk and hash run on a thread, for the event loop serves everyone."""
        self.size_bytes += len(piece)
        if self.size_bytes > self._limit:
            raise TooLarge(f"The file is larger than {self._limit} bytes.", reason="upload_too_large")
        await run_in_threadpool(self._take, piece)

    @property
    def sha256(self) -> str:
        """Hash of everything so far."""
        return self._digest.hexdigest()

    def _take(self, piece: bytes) -> None:
        self._digest.update(piece)
        if self._file is not None:
            self._file.write(piece)


@asynccontextmanager
async def receive_upload(request: Request, settings: Settings) -> AsyncIterator[Upload]:
    """Streams the request's file to the scratch folder and lends it out; what is left at the end is deleted.

    Raises:
        UnsupportedMediaType: The body is not plain multipart/form-data.
        InvalidRequest: It is malformed or ends early.
        TooLarge: The file is over the limit, however the body is framed.
        RequestTimeout: The client stopped sending.
        DigestMismatch: The file is not the one that the headers announced.
        ClientDisconnect: The client went away.
    """
    wanted = announced_digest(request)
    path = settings.scratch_dir / f"upload-{new_id('req')}"
    try:
        with path.open("xb") as file:
            sink = HashingSink(settings.max_upload_bytes, file)
            form = await read_form(request.scope, request.receive, settings, sink)
            filename = require_file(form)
            await run_in_threadpool(_sync, file)
        if wanted is not None and wanted != sink.sha256:
            raise DigestMismatch("The file does not have the announced sha256.")
        request.scope[UPLOAD_FINGERPRINT_KEY] = upload_fingerprint(form.fields, sink.sha256)
        yield Upload(path, filename, sink.sha256, sink.size_bytes, form.fields)
    finally:
        path.unlink(missing_ok=True)


async def fingerprint_upload(scope: Scope, receive: Receive, settings: Settings) -> str:
    """Reads an upload to the end and keeps nothing but its fingerprint."""
    sink = HashingSink(settings.max_upload_bytes)
    form = await read_form(scope, receive, settings, sink)
    return upload_fingerprint(form.fields, sink.sha256)


async def read_form(scope: Scope, receive: Receive, settings: Settings, sink: Sink) -> Form:
    """Parses the multipart body of a request into its fields and the sink."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Bodies with a Content-Encoding are not read.", reason="content_encoding")
    length = announced_length(scope)
    if length is not None and length > settings.max_upload_bytes + FORM_OVERHEAD_BYTES:
        raise TooLarge(f"The file is larger than {settings.max_upload_bytes} bytes.", reason="upload_too_large")
    chunks = _counted(patient_chunks(receive, settings.upload_idle_seconds), length)
    return await parse_multipart(headers.get("content-type", ""), chunks, sink)


async def _counted(chunks: AsyncIterator[bytes], length: int | None) -> AsyncIterator[bytes]:
    received = 0
    async for chunk in chunks:
        received += len(chunk)
        yield chunk
    if length is not None and received != length:
        raise InvalidRequest("The body is not as long as Content-Length says.", reason="content_length")


def announced_digest(request: Request) -> str | None:
    """The sha256 in hex that ``X-Content-SHA256`` or ``Repr-Digest`` (RFC 9530) announces for the file."""
    plain = request.headers.get("x-content-sha256")
    if plain is not None:
        if len(plain) != _HEX_LENGTH or not set(plain.lower()) <= set("0123456789abcdef"):
            raise InvalidRequest("X-Content-SHA256 is not 64 hexadecimal digits.", reason="digest_invalid")
        return plain.lower()
    for member in request.headers.get("repr-digest", "").split(","):
        algorithm, _, value = member.strip().partition("=")
        if algorithm.lower() == "sha-256":
            return _from_structured(value)
    return None


def _from_structured(value: str) -> str:
    try:
        digest = base64.b64decode(value.strip(":"), validate=True)
    except binascii.Error as error:
        raise InvalidRequest("Repr-Digest is not a byte sequence.", reason="digest_invalid") from error
    return digest.hex()


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
