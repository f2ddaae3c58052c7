"""What the service itself costs: accepting a job, handing it to an idle worker, starting the API, taking an upload.

python -m tests.benchmarks.service
"""

import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx
import psutil

from tests import trained
from tests.live import LiveService

JOBS = 20
UPLOAD_BYTES = 1 << 30
START_API = """
import time
started = time.perf_counter()
from app.main import create_app
create_app()
print(time.perf_counter() - started)
"""


def main() -> int:
    """Prints one line per figure."""
    with tempfile.TemporaryDirectory(prefix="pressroom-bench-") as folder:
        root = Path(folder)
        print(f"API import and construction: {_api_start(root):.2f} s (bar: 2 s)")
        with LiveService(root / "data") as service:
            submit, claim = _job_latencies(service, trained.write_onnx("mlp", root / "mlp.onnx"))
            print(f"POST /v1/jobs, {JOBS} jobs: median {1000 * statistics.median(submit):.0f} ms")
            print(
                f"created to started on an idle worker: median {1000 * statistics.median(claim):.0f} ms (bar: 100 ms)"
            )
            grown, seconds = _large_upload(service)
            print(f"1 GiB upload: {seconds:.1f} s, API peak RSS grew by {grown / 1e6:.1f} MB (bar: 64 MB)")
    return 0


def _api_start(root: Path) -> float:
    environment = os.environ | {"PRESSROOM_DATA_DIR": str(root / "start")}
    made = subprocess.run(
        [sys.executable, "-c", START_API], env=environment, capture_output=True, check=True, text=True
    )
    return float(made.stdout)


def _job_latencies(service: LiveService, model: Path) -> tuple[list[float], list[float]]:
    client = service.client
    uploaded = client.post("/v1/models", files={"file": model.open("rb")}, data={"name": "mlp"})
    uploaded.raise_for_status()
    spec = {
        "model": uploaded.json()["id"],
        "recipe": [{"technique": "quantize", "method": "float16"}],
        "evaluation": {"repeats": 5, "batch_sizes": [1]},
    }
    submit, claim = [], []
    for _ in range(JOBS):
        started = time.perf_counter()
        job = client.post("/v1/jobs", json=spec).raise_for_status().json()
        submit.append(time.perf_counter() - started)
        job = client.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=60"}).json()
        claim.append(_time(job["started_at"]) - _time(job["created_at"]))
    return submit, claim


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _large_upload(service: LiveService) -> tuple[int, float]:
    """Uploads noise that no format fits: it is read to its end before it is refused, which is what is measured."""
    api = _api_process(service)
    before = _peak(api)
    boundary = hashlib.sha256(b"boundary").hexdigest()
    started = time.perf_counter()
    answer = httpx.post(
        f"{service.url}/v1/models",
        content=_multipart(boundary),
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
        timeout=600,
    )
    if answer.status_code != 415:
        raise SystemExit(f"expected a refusal of the format, got {answer.status_code}: {answer.text[:200]}")
    return _peak(api) - before, time.perf_counter() - started


def _multipart(boundary: str) -> Iterator[bytes]:
    yield f'--{boundary}\r\nContent-Disposition: form-data; name="name"\r\n\r\nlarge\r\n'.encode()
    yield (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="large.bin"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    chunk = os.urandom(1 << 20)
    for _ in range(UPLOAD_BYTES >> 20):
        yield chunk
    yield f"\r\n--{boundary}--\r\n".encode()


def _api_process(service: LiveService) -> psutil.Process:
    if service.process is None:
        raise RuntimeError("the service is not running")
    children = psutil.Process(service.process.pid).children(recursive=True)
    return next(child for child in children if "uvicorn" in " ".join(child.cmdline()))


def _peak(process: psutil.Process) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())
