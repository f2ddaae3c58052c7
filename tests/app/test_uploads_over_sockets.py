"""What only a socket can do to an upload."""

import base64
import gzip
import hashlib
import http.client
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import func, select

from app.artifacts.records import BlobRecord
from app.config import Settings
from app.db import Database
from tests.builders import safetensors
from tests.inspector import Inspector

BOUNDARY = "frontier"
HEAD = (f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="m.safetensors"\r\n\r\n').encode()
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()
CONTENT = safetensors(b"weights")
WHOLE = HEAD + CONTENT + TAIL


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_upload_bytes": 4 << 20, "upload_idle_seconds": 1.0})


def post(server_url: str, body: bytes, headers: dict[str, str], *, close: bool = False) -> tuple[int, str]:
    """Sends exactly these bytes; ``close`` hangs up instead of reading the answer."""
    address = urlsplit(server_url)
    lines = [
        "POST /v1/models HTTP/1.1",
        f"Host: {address.netloc}",
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=20) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        if close:
            return 0, ""
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.read().decode()


def assert_nothing_left(settings: Settings, database: Database) -> None:
    deadline = time.monotonic() + 10
    while left := list(settings.scratch_dir.iterdir()):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(BlobRecord)) == 0
    assert [path for path in Path(settings.data_dir, "blobs").rglob("*") if path.is_file()] == []


def length(body: bytes) -> dict[str, str]:
    return {"Content-Length": str(len(body))}


def chunked(body: bytes) -> bytes:
    return b"".join(
        b"%x\r\n%s\r\n" % (len(body[i : i + 65536]), body[i : i + 65536]) for i in range(0, len(body), 65536)
    )


BIG = HEAD + bytes(5 << 20) + TAIL
WRONG_DIGEST = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (WHOLE, {"Content-Length": str(len(WHOLE) - 10)}, 400, "incomplete_body"),
        (HEAD + CONTENT, length(HEAD + CONTENT), 400, "incomplete_body"),
        (b"no boundary at all", length(b"no boundary at all"), 400, "multipart_invalid"),
        (WHOLE, {"Content-Length": str(len(WHOLE) + 10)}, 408, "idle"),
        (BIG, length(BIG), 413, "upload_too_large"),
        (chunked(BIG) + b"0\r\n\r\n", {"Transfer-Encoding": "chunked"}, 413, "upload_too_large"),
        (WHOLE, {"Content-Length": str(1 << 40)}, 413, "upload_too_large"),
        (
            gzip.compress(WHOLE, mtime=0),
            length(gzip.compress(WHOLE, mtime=0)) | {"Content-Encoding": "gzip"},
            415,
            "content_encoding",
        ),
        (WHOLE, length(WHOLE) | {"X-Content-SHA256": "0" * 64}, 422, "digest_mismatch"),
        (WHOLE, length(WHOLE) | {"Repr-Digest": f"sha-256=:{WRONG_DIGEST}:"}, 422, "digest_mismatch"),
        (WHOLE, length(WHOLE) | {"X-Content-SHA256": "zz"}, 400, "digest_invalid"),
    ],
    ids=[
        "length too short",
        "no last boundary",
        "not multipart",
        "length too long",
        "too large",
        "too large without a length",
        "far too large by its length",
        "gzip",
        "other digest",
        "other repr-digest",
        "no digest",
    ],
)
def test_bad_uploads_are_refused_and_leave_nothing(
    server_url: str,
    settings: Settings,
    database: Database,
    body: bytes,
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    found, text = post(server_url, body, {**headers, "Connection": "close"})
    assert (found, code in text) == (status, True), text
    assert_nothing_left(settings, database)


def test_a_client_that_goes_away_leaves_nothing(server_url: str, settings: Settings, database: Database) -> None:
    post(server_url, HEAD + bytes(2 << 20), {"Content-Length": str(3 << 20)}, close=True)
    assert_nothing_left(settings, database)
    assert httpx.get(f"{server_url}/healthz").status_code == 200


def test_a_good_digest_is_accepted(server_url: str, inspector: Inspector) -> None:
    digest = hashlib.sha256(CONTENT).digest()
    encoded = base64.b64encode(digest).decode()
    for headers in ({"X-Content-SHA256": digest.hex()}, {"Repr-Digest": f"sha-256=:{encoded}:"}):
        status, text = post(server_url, WHOLE, {**length(WHOLE), **headers, "Connection": "close"})
        assert status in {200, 201}, text


def test_a_silent_json_request_times_out(server_url: str) -> None:
    address = urlsplit(server_url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=20) as connection:
        connection.sendall(
            f"POST /v1/jobs HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
            "Content-Length: 10\r\n\r\n{".encode()
        )
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 408
