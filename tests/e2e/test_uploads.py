"""Uploads that lie about themselves, and requests that are bombs."""

import base64
import gzip
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.e2e.conftest import Digits
from tests.live import LiveService

pytestmark = pytest.mark.e2e

BOUNDARY = "pressroom-test"
CAP_BYTES = 4 << 20


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """A service that takes at most 4 MiB and drops a silent upload after two seconds."""
    environment = {"PRESSROOM_MAX_UPLOAD_BYTES": str(CAP_BYTES), "PRESSROOM_UPLOAD_IDLE_SECONDS": "2"}
    with LiveService(tmp_path_factory.mktemp("small") / "data", environment) as service:
        yield service


def form(content: bytes, filename: str = "model.bin") -> bytes:
    """A multipart body by hand, so that its parts can lie."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="name"\r\n\r\nx\r\n'
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def head_of(length: str, **extra: str) -> bytes:
    lines = [
        "POST /v1/models HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
        length,
        "Connection: close",
        *(f"{name.replace('_', '-')}: {value}" for name, value in extra.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@contextmanager
def connection(service: LiveService) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as wire:
        yield wire


def answer(wire: socket.socket) -> tuple[int, bytes]:
    """Status and everything else the service sends before it closes."""
    received = b""
    try:
        while block := wire.recv(65536):
            received += block
    except ConnectionResetError:
        pass  # the service closed while it had unread bytes; what it sent before counts
    status = int(received.split(b" ", 2)[1]) if received.startswith(b"HTTP/1.1 ") else 0
    return status, received


def leftovers(service: LiveService) -> list[str]:
    return [str(path) for path in (service.folder / "scratch").rglob("*") if path.is_file()]


def blobs(service: LiveService) -> set[str]:
    return {path.name for path in (service.folder / "blobs").rglob("*") if path.is_file()}


def totals(service: LiveService) -> int:
    return len(service.client.get("/v1/models", params={"limit": 100}).json()["data"])


def test_body_shorter_than_it_says_leaves_nothing(small: LiveService) -> None:
    body, before = form(b"x" * 1000), blobs(small)
    with connection(small) as wire:
        wire.sendall(head_of(f"Content-Length: {len(body) + 5000}") + body)
        wire.shutdown(socket.SHUT_WR)
        status, _ = answer(wire)

    assert status in {0, 400, 408, 422}
    assert (leftovers(small), blobs(small)) == ([], before)


def test_body_longer_than_it_says_is_cut_or_refused(small: LiveService) -> None:
    body = form(b"x" * 1000)
    with connection(small) as wire:
        wire.sendall(head_of("Content-Length: 400") + body)
        status, _ = answer(wire)

    assert status in {400, 415, 422}
    assert leftovers(small) == []


def test_length_over_the_cap_is_refused_before_the_body(small: LiveService) -> None:
    with connection(small) as wire:
        wire.sendall(head_of(f"Content-Length: {10 << 30}") + form(b"x" * 100)[:200])
        status, received = answer(wire)

    assert status == 413
    assert b'"code":"too_large"' in received.replace(b" ", b"")


def test_endless_chunks_are_cut_at_the_cap(small: LiveService) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    start = form(b"")[:-20]
    with connection(small) as wire:
        wire.sendall(head_of("Transfer-Encoding: chunked") + b"%x\r\n%s\r\n" % (len(start), start))
        try:
            for _ in range(CAP_BYTES // 0x10000 * 4):
                wire.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the service has stopped listening, as it should
        status, _ = answer(wire)

    assert status in {0, 413}
    assert leftovers(small) == []


def test_upload_that_falls_silent_is_dropped(small: LiveService) -> None:
    with connection(small) as wire:
        wire.sendall(head_of("Content-Length: 100000") + form(b"x" * 500)[:600])
        status, _ = answer(wire)

    assert status in {0, 408}
    assert leftovers(small) == []
    assert small.client.get("/readyz").status_code == httpx.codes.OK


def test_client_that_hangs_up_leaves_nothing(small: LiveService) -> None:
    before, rows = blobs(small), totals(small)
    with connection(small) as wire:
        wire.sendall(head_of("Content-Length: 1000000") + form(b"x" * 100_000)[:50_000])

    assert small.client.get("/readyz").status_code == httpx.codes.OK
    assert (blobs(small), totals(small)) == (before, rows)
    wait_until(lambda: not leftovers(small))


def wait_until(true: Any, seconds: float = 10.0) -> None:
    """Waits for what another process does in its own time."""
    done = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if true():
            return
        done.wait(0.05)
    pytest.fail("it did not happen in time")


@pytest.mark.parametrize("header", ["X-Content-SHA256", "Repr-Digest"])
def test_digest_that_does_not_match_is_refused(header: str, service: LiveService, digits: Digits) -> None:
    wrong = hashlib.sha256(b"other bytes")
    value = wrong.hexdigest() if header.startswith("X-") else f"sha-256=:{base64.b64encode(wrong.digest()).decode()}:"
    files = {"file": ("digits.onnx", digits.onnx.read_bytes() + b"\x72\x00")}

    response = service.client.post("/v1/models", data={"name": "x"}, files=files, headers={header: value})

    assert response.status_code == 422
    assert response.json()["code"] == "digest_mismatch"


def test_two_uploads_at_once_of_the_same_bytes_make_one_model(service: LiveService, digits: Digits) -> None:
    content = digits.onnx.read_bytes() + b"\x72\x03\x0a\x01p"

    def upload(_: int) -> httpx.Response:
        return httpx.post(
            f"{service.url}/v1/models", data={"name": "twin"}, files={"file": ("t.onnx", content)}, timeout=60
        )

    with ThreadPoolExecutor(4) as pool:
        responses = list(pool.map(upload, range(4)))

    assert {response.status_code for response in responses} <= {200, 201, 202}
    assert len({response.json()["id"] for response in responses}) == 1


NAMES = {
    "climbing": "../../../../etc/cron.d/x",
    "absolute": "/etc/passwd",
    "long": "n" * 10_000 + ".onnx",
    "nul": "a\x00b.onnx",
    "right to left": "model\u202exnno.exe",
    "markup": "<img src=x onerror=alert(1)>.onnx",
    "header": 'x"\r\nSet-Cookie: a=b',
    "empty": "",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_file_name_is_never_a_path(name: str, service: LiveService, digits: Digits) -> None:
    salt = hashlib.sha256(name.encode()).hexdigest()[:8].encode()
    content = digits.onnx.read_bytes() + b"\x72\x0a\x0a\x08" + salt
    body = form(content, name.replace('"', "%22").replace("\r\n", "%0D%0A"))
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}

    response = service.client.post("/v1/models", content=body, headers=headers)

    assert response.status_code in {201, 202, 400, 422}
    if response.is_success:
        answer = service.client.get(f"/v1/models/{response.json()['id']}/content")
        disposition = answer.headers["content-disposition"]
        assert "set-cookie" not in answer.headers
        assert "attachment" in disposition
        assert "/" not in disposition.replace("UTF-8''", "")
        assert len(disposition) < 2000


def test_compressed_request_is_not_unpacked(service: LiveService) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    api = service.process_of("uvicorn")
    before = api.memory_info().rss
    headers = {"Content-Encoding": "gzip", "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}

    upload = service.client.post("/v1/models", content=bomb, headers=headers)
    job = service.client.post(
        "/v1/jobs", content=bomb, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"}
    )

    assert (upload.status_code, job.status_code) == (415, 415)
    assert api.memory_info().rss - before < 32 << 20


def test_large_upload_does_not_stay_in_memory(service: LiveService, tmp_path: Path) -> None:
    path = tmp_path / "big.npz"
    np.savez(path, input=np.random.default_rng(0).random((25_000, 2_000), np.float32), target=np.arange(25_000) % 3)
    api = service.process_of("uvicorn")
    before, peak, done = api.memory_info().rss, [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], api.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    response = service.upload("dataset", path)
    done.set()
    watcher.join()

    assert response.status_code in {201, 202}, response.text
    assert peak[0] - before < 64 << 20


BOMBS: dict[str, dict[str, Any]] = {
    "bits of a billion": {"technique": "quantize", "bits": 10**9},
    "sparsity below zero": {"technique": "prune", "sparsity": -1},
    "sparsity above one": {"technique": "prune", "sparsity": 1.0000001},
    "a million layers": {"technique": "quantize", "include": ["a"] * 1_000_000},
    "glob of a megabyte": {"technique": "quantize", "include": ["a" * (1 << 20)]},
    "technique of a megabyte": {"technique": "q" * (1 << 20)},
    "unknown technique": {"technique": "os.system"},
    "unknown method": {"technique": "quantize", "method": "__import__"},
    "unknown field": {"technique": "quantize", "callback": "http://169.254.169.254/"},
    "samples of a quintillion": {"technique": "quantize", "method": "static", "samples": 10**18},
}


@pytest.mark.parametrize("step", BOMBS.values(), ids=BOMBS.keys())
def test_step_that_is_a_bomb_is_refused(step: dict[str, Any], service: LiveService, digits: Digits) -> None:
    response = service.client.post("/v1/jobs", json={"model": digits.model["id"], "recipe": [step]})

    assert response.status_code in {413, 422}
    problem = response.json()
    assert problem["code"] in {"invalid_spec", "too_large"}
    assert len(response.content) < 20_000
    if response.status_code == 422:
        assert problem["errors"][0]["pointer"].startswith("/recipe/0")


def test_glob_is_never_a_regular_expression(service: LiveService, digits: Digits) -> None:
    steps = [{"technique": "quantize", "exclude": ["(a+)+$", "*" * 64 + "a" * 100, "[" * 100]}]

    response = service.client.post("/v1/jobs/validate", json={"model": digits.model["id"], "recipe": steps})

    assert response.status_code == 200
    assert response.elapsed.total_seconds() < 5


RAW_BODIES = {
    "sparsity NaN": b'{"model": "mdl_x", "recipe": [{"technique": "prune", "sparsity": NaN}]}',
    "sparsity 1e400": b'{"model": "mdl_x", "recipe": [{"technique": "prune", "sparsity": 1e400}]}',
    "nested": b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "digits": b'{"model": "mdl_x", "seed": ' + b"9" * 100_000 + b"}",
    "three megabytes": b'{"model": "' + b"x" * (3 << 20) + b'"}',
    "not json": b"model=mdl_x",
    "not utf-8": b'{"model": "\xff\xfe"}',
    "lone surrogate": b'{"model": "\\ud800", "recipe": [{"technique": "quantize"}]}',
    "nul": b'{"model": "mdl_\\u0000", "recipe": [{"technique": "quantize"}]}',
    "a list": b"[]",
    "nothing": b"",
}


@pytest.mark.parametrize("body", RAW_BODIES.values(), ids=RAW_BODIES.keys())
def test_body_that_is_a_bomb_is_refused(body: bytes, service: LiveService) -> None:
    response = service.client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})

    assert response.status_code in {400, 404, 413, 422}
    assert response.headers["content-type"] == "application/problem+json"
    assert len(response.content) < 20_000
    assert {"type", "title", "status", "detail", "code", "owner", "retryable", "request_id"} <= response.json().keys()


def test_whole_request_bombs_are_refused(service: LiveService, digits: Digits) -> None:
    sound = {"model": digits.model["id"], "recipe": [{"technique": "quantize"}]}
    bombs: list[dict[str, Any]] = [
        {"recipe": sound["recipe"] * 1000},
        {"recipe": []},
        {"objective": {"minimize": "size_bytes"}},
        {"evaluation": {"batch_sizes": [10**9]}},
        {"evaluation": {"repeats": 10**12}},
        {"evaluation": {"input_shapes": {"input": [10**12, 10**12]}}},
        {"execution": {"timeout_seconds": -1}},
        {"execution": {"world_size": 10**6, "strategy": "ddp"}},
        {"labels": {str(index): "x" for index in range(10_000)}},
        {"labels": {"a": "x" * 100_000}},
        {"seed": -1},
        {"outputs": ["../../etc/passwd"]},
        {"publish": {"mlflow": {"experiment": "http://169.254.169.254/"}}},
    ]
    for bomb in bombs:
        response = service.client.post("/v1/jobs", json=sound | bomb)
        assert response.status_code == 422, (json.dumps(bomb)[:80], response.text[:500])
        assert response.json()["code"] == "invalid_spec"


@pytest.mark.parametrize("query", ["limit=1000", "limit=0", "limit=-1", "limit=x", "created_after=never"])
def test_list_query_out_of_bounds_is_refused(query: str, service: LiveService) -> None:
    response = service.client.get(f"/v1/jobs?{query}")

    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
