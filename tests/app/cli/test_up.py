import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from app.client.client import Client
from tests.app.cli.running import free_port, running

pytestmark = pytest.mark.e2e


def up(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli.main", "up", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_service_stops_cleanly_and_goes_on_where_it_was(tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("a,b,target\n" + "1,2,0\n3,4,1\n" * 20)
    # Too long for a unix socket: Redis has to listen elsewhere.
    folder = tmp_path / ("long-" * 20) / "service"
    with running(folder) as service, Client(service.url) as client:
        uploaded = client.datasets.upload(data)
        parts = service.parts()
        assert len(parts) >= 5
        assert service.stop(signal.SIGINT) < 15.0
        assert service.process.returncode == 0
        assert psutil.wait_procs(parts, timeout=1)[1] == []
    with running(folder) as service, Client(service.url) as client:
        again = client.datasets.get(uploaded.id)
        assert (again.status, again.sha256) == (uploaded.status, uploaded.sha256)
        assert service.stop(signal.SIGTERM) < 15.0
        assert service.process.returncode == 0


def test_one_folder_has_one_service_whose_parts_come_back_and_die_with_it(tmp_path: Path) -> None:
    with running(tmp_path / "service") as service, Client(service.url, retries=8) as client:
        second = up("--port", str(free_port()), "--data-dir", str(tmp_path / "service"))
        assert (second.returncode, "another service is running" in second.stderr) == (1, True)
        third = up("--port", service.url.rpartition(":")[2], "--data-dir", str(tmp_path / "other"))
        assert (third.returncode, "cannot bind" in third.stderr) == (1, True)

        killed = service.part("uvicorn")
        killed.kill()
        killed.wait(10)
        assert client.version()["version"]
        assert service.part("uvicorn").pid != killed.pid

        parts = service.parts()
        service.stop(signal.SIGKILL)
        assert psutil.wait_procs(parts, timeout=10)[1] == []


def test_other_machines_are_not_served_without_keys(tmp_path: Path) -> None:
    refused = up("--host", "0.0.0.0", "--port", str(free_port()), "--data-dir", str(tmp_path / "service"))
    assert refused.returncode == 1
    assert "without API keys" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert len(refused.stderr.splitlines()) <= 4
