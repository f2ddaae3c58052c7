"""The API process is lean, and keeps big uploads out of its memory."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from app.config import Settings
from app.db import Database

HEAVY = ["numpy", "onnx", "onnxruntime", "pandas", "pyarrow", "scipy", "sklearn", "torch", "transformers"]
PROBE = """
import json, sys, time
started = time.perf_counter()
from app.main import create_app
create_app().openapi()
print(json.dumps({"seconds": time.perf_counter() - started, "modules": sorted(sys.modules)}))
"""
SLICE_BYTES = 200 << 20
GROWTH_BYTES = 64 << 20


def test_the_api_never_imports_the_engines_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, timeout=60)
    found = json.loads(done.stdout)
    assert [name for name in HEAVY if name in found["modules"]] == []
    assert [name for name in found["modules"] if name.startswith("workers.compression.families")] == []
    with capsys.disabled():
        sys.stdout.write(f"\nAPI import and OpenAPI: {found['seconds']:.2f} s\n")


@pytest.fixture
def api_process(settings: Settings, tmp_path: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The API as `pressroom up` starts it."""
    socket_path = tmp_path / "api.sock"
    environment = {
        **os.environ,
        "PRESSROOM_DATA_DIR": str(settings.data_dir),
        "PRESSROOM_REDIS_URL": str(settings.redis_url),
        "PRESSROOM_INSPECTION_WAIT_SECONDS": "0",
    }
    with socket.socket(socket.AF_UNIX) as listener:
        # Listening before the process starts: a request simply waits until it is up.
        listener.bind(str(socket_path))
        listener.listen()
        fd = str(listener.fileno())
        command = [sys.executable, "-m", "uvicorn", "--factory", "app.main:create_app", "--fd", fd]
        with subprocess.Popen(command, env=environment, pass_fds=[int(fd)], stderr=subprocess.DEVNULL) as process:
            try:
                yield str(socket_path), psutil.Process(process.pid)
            finally:
                process.terminate()


def _body(size: int) -> Iterator[bytes]:
    yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="big.safetensors"\r\n\r\n'
    header = f'{{"w":{{"dtype":"U8","shape":[{size}],"data_offsets":[0,{size}]}}}}'.encode()
    yield len(header).to_bytes(8, "little") + header
    block = bytes(1 << 20)
    for _ in range(size >> 20):
        yield block
    yield b"\r\n--b--\r\n"


@pytest.mark.parametrize("size", [SLICE_BYTES, pytest.param(1 << 30, marks=pytest.mark.long)], ids=["200 MiB", "1 GiB"])
def test_an_upload_does_not_pass_through_memory(
    api_process: tuple[str, psutil.Process], database: Database, size: int
) -> None:
    path, process = api_process
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    transport = httpx.HTTPTransport(uds=path)
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=120) as client:
        client.get("/v1/models").raise_for_status()
        before = _peak(process)
        response = client.post("/v1/models", content=_body(size), headers=headers)
        assert response.status_code == 202, response.text
        assert response.json()["size_bytes"] > size
    assert _peak(process) - before < GROWTH_BYTES


def _peak(process: psutil.Process) -> int:
    """Peak resident memory in bytes, which the kernel keeps."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:"))
