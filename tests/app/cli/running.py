"""``pressroom up`` as a process, for tests."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.client.client import Client

START_SECONDS = 60.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass
class Running:
    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def parts(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def part(self, word: str) -> psutil.Process:
        """The process with ``word`` in its command line."""
        return next(part for part in self.parts() if any(word in argument for argument in part.cmdline()))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Seconds until it has ended."""
        started = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(30)
        return time.monotonic() - started


@contextmanager
def running(data_dir: Path, *, port: int | None = None) -> Iterator[Running]:
    """A service that is ready; killed at the end if a test has not stopped it."""
    port = port or free_port()
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    url, log = f"http://127.0.0.1:{port}", data_dir.parent / f"{data_dir.name}.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PRESSROOM_")}
    command = [sys.executable, "-m", "app.cli.main", "up", "--port", str(port), "--data-dir", str(data_dir)]
    with log.open("ab") as lines, subprocess.Popen(command, env=environment, stdout=lines, stderr=lines) as process:
        try:
            _wait_until_ready(process, url, log)
            yield Running(process, url, log)
        finally:
            process.kill()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with Client(url) as client:
        while not client.ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
