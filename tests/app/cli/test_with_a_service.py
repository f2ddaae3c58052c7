"""The README's session and the commands, against one running service."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pressroom.demo import digits
from tests.app.cli.running import Running, running

pytestmark = pytest.mark.e2e
README = Path(__file__).parents[3] / "README.md"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("up") / "service") as service:
        yield service
        assert service.stop() < 15.0


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with digits.onnx and digits-test.npz."""
    folder = tmp_path_factory.mktemp("digits")
    digits.main(folder)
    return folder


def pressroom(service: Running, *arguments: str, expected: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli.main", *arguments],
        env={**os.environ, "PRESSROOM_URL": service.url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == expected, done.stdout + done.stderr + service.log.read_text("utf-8")
    return done


@pytest.mark.skipif(shutil.which("curl") is None, reason="the session is about curl")
def test_the_curl_session_of_the_readme_works_as_it_stands(service: Running, tmp_path: Path) -> None:
    session = re.search(r"^```bash\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert session is not None
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", session[1]],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PRESSROOM_URL": service.url,
        },
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr + service.log.read_text("utf-8")
    assert "event: job.succeeded" in done.stdout
    assert re.search(r"^succeeded$", done.stdout, re.MULTILINE)
    assert (tmp_path / "digits.int8.onnx").stat().st_size < 0.3 * (tmp_path / "digits.onnx").stat().st_size
    assert re.search(r'"accuracy": 0\.9', done.stdout)


def test_submit_watch_fetch_and_report_bring_a_model_through(service: Running, inputs: Path, tmp_path: Path) -> None:
    data = f"evaluation={inputs / 'digits-test.npz'}"
    submitted = pressroom(
        service,
        "submit",
        str(inputs / "digits.onnx"),
        "--technique",
        "quantize",
        "--data",
        data,
        "--no-watch",
        "--json",
    )
    job = json.loads(submitted.stdout)["id"]
    assert "succeeded" in pressroom(service, "watch", job).stderr
    fetched = json.loads(pressroom(service, "fetch", job, "-o", str(tmp_path), "--json").stdout)
    assert all(Path(file["path"]).stat().st_size == file["size_bytes"] for file in fetched)
    assert "accuracy" in pressroom(service, "report", job).stdout
    page = tmp_path / "report.html"
    pressroom(service, "report", job, "-o", str(page))
    assert page.read_text("utf-8").lstrip().lower().startswith("<!doctype html")


def test_what_the_service_refuses_is_one_line_that_names_the_field(service: Running, inputs: Path) -> None:
    arguments = ("submit", str(inputs / "digits.onnx"), "--technique", "quantize.dynamic", "--set", "bits=3")
    refused = pressroom(service, *arguments, expected=3)
    errors = [line for line in refused.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "/recipe/0" in errors[0]


def test_a_model_that_is_no_model_is_refused_with_the_services_reason(service: Running, tmp_path: Path) -> None:
    file = tmp_path / "model.pkl"
    file.write_bytes(b"\x80\x04K\x01.")
    assert "unsupported_format" in pressroom(service, "submit", str(file), "--technique", "quantize", expected=3).stderr


def test_the_catalogue_is_listed(service: Running) -> None:
    names = {
        (entry["technique"], entry["method"]) for entry in json.loads(pressroom(service, "techniques", "--json").stdout)
    }
    assert ("quantize", "dynamic") in names
