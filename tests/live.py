"""The whole service as its users meet it: started by its command, spoken to over HTTP alone."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
import pytest

COMMAND = Path(sys.executable).with_name("pressroom")
START_SECONDS = 90
STOP_SECONDS = 20
POLL_SECONDS = 0.05
REQUEST_SECONDS = 120
JOB_SECONDS = 240
MAX_WAIT_SECONDS = 60
BLOB_GRACE_SECONDS = 30


@dataclass
class LiveService:
    """``pressroom up`` on a free port and a folder of its own.

    Args:
        folder: The data folder.
        environment: Settings on top of this process's environment.
        key: API key the client sends.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    key: str | None = None
    process: subprocess.Popen[bytes] | None = None
    port: int = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What the service printed."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def log_file(self) -> Path:
        return self.folder.parent / f"{self.folder.name}.log"

    def start(self) -> None:
        """Starts the service and waits until it says that it is ready."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        command = [str(COMMAND), "up", "--port", str(self.port), "--data-dir", str(self.folder)]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=os.environ | {"OMP_NUM_THREADS": "1"} | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.client = httpx.Client(base_url=self.url, timeout=REQUEST_SECONDS, headers=self._headers())
        self._await_ready()

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if time.monotonic() > deadline or self.process is None or self.process.poll() is not None:
                self.stop()
                pytest.fail(f"the service did not become ready\n{self.log[-4000:]}")
            time.sleep(POLL_SECONDS)

    def _ready(self) -> bool:
        try:
            return self.client.get("/readyz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def stop(self) -> float:
        """Ends the service as Ctrl-C would; the seconds that took."""
        if self.process is None:
            return 0.0
        self.client.close()
        process, self.process = self.process, None
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            pytest.fail(f"the service did not stop within {STOP_SECONDS} s")
        return time.monotonic() - started

    def process_of(self, part: str) -> psutil.Process:
        """The process of one part, found by a word of its command line."""
        if self.process is None:
            raise RuntimeError("the service is not running")
        found = [child for child in psutil.Process(self.process.pid).children() if part in " ".join(child.cmdline())]
        return found[0]

    def upload(self, kind: str, path: Path, **fields: str) -> httpx.Response:
        """Posts a file to ``/v1/models`` or ``/v1/datasets``."""
        form = {"name": path.stem} | fields
        with path.open("rb") as content:
            files = {"file": (path.name, content, "application/octet-stream")}
            return self.client.post(f"/v1/{kind}s", data=form, files=files)

    def ready(self, kind: str, path: Path, **fields: str) -> dict[str, Any]:
        """Uploads a good file and waits for its inspection."""
        response = self.upload(kind, path, **fields)
        assert response.status_code in {200, 201, 202}, response.text
        found = self.inspected(kind, response.json())
        assert found["status"] == "ready", found["error"]
        return found

    def inspected(self, kind: str, found: dict[str, Any], seconds: float = JOB_SECONDS) -> dict[str, Any]:
        """The object once its inspection has ended."""
        deadline = time.monotonic() + seconds
        while found["status"] == "inspecting":
            assert time.monotonic() < deadline, f"{found['id']} is still being inspected"
            time.sleep(POLL_SECONDS)
            found = self.client.get(f"/v1/{kind}s/{found['id']}").raise_for_status().json()
        return found

    def submit(self, model: str, recipe: list[dict[str, Any]], **request: Any) -> dict[str, Any]:
        """Posts a job that has to be taken."""
        response = self.client.post("/v1/jobs", json={"model": model, "recipe": recipe} | request)
        assert response.status_code == httpx.codes.ACCEPTED, response.text
        job: dict[str, Any] = response.json()
        return job

    def finished(self, job_id: str, seconds: float = JOB_SECONDS) -> dict[str, Any]:
        """The job once it is done."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            wait = {"Prefer": f"wait={MAX_WAIT_SECONDS}"}
            job: dict[str, Any] = self.client.get(f"/v1/jobs/{job_id}", headers=wait).raise_for_status().json()
            if job["done"]:
                return job
        raise AssertionError(f"{job_id} is not done after {seconds} s: {job}")

    def succeeded(self, model: str, recipe: list[dict[str, Any]], **request: Any) -> dict[str, Any]:
        """A job from submission to success."""
        job = self.finished(self.submit(model, recipe, **request)["id"])
        assert job["status"] == "succeeded", job["error"]
        return job

    def artifact(self, job: dict[str, Any], folder: Path, kind: str = "model") -> Path:
        """Downloads the job's artifact of that kind."""
        found = next(artifact for artifact in job["artifacts"] if artifact["kind"] == kind)
        path = folder / str(found["name"])
        path.write_bytes(self.client.get(f"/v1/artifacts/{found['id']}/content").raise_for_status().content)
        return path


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """One service for the whole session."""
    environment = {"PRESSROOM_WORKER_CONCURRENCY": "2", "PRESSROOM_BLOB_GRACE_SECONDS": str(BLOB_GRACE_SECONDS)}
    with LiveService(tmp_path_factory.mktemp("live") / "data", environment) as running:
        yield running
