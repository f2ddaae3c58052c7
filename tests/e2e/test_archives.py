"""The archive of an artifact: asked for with the job, fetched over HTTP, unpacked on the command line."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Digits, accuracy
from tests.live import LiveService

pytestmark = pytest.mark.e2e


def test_archive_unpacks_to_the_artifact_that_was_measured(
    service: LiveService, digits: Digits, tmp_path: Path
) -> None:
    request = {
        "model": digits.model["id"],
        "recipe": [
            {"technique": "prune", "sparsity": 0.9, "scope": "layer"},
            {"technique": "quantize", "method": "kmeans", "bits": 4},
        ],
        "data": digits.data,
        "outputs": ["onnx", "archive"],
    }
    answer = service.client.post("/v1/jobs", json=request)
    assert answer.status_code == 202, answer.text
    job = service.finished(answer.json()["id"], 240)
    assert job["status"] == "succeeded", job["error"]
    assert job["spec"]["outputs"] == ["onnx", "archive"]

    artifact, archive = service.artifact(job, tmp_path), service.artifact(job, tmp_path, "archive")
    stored = next(found for found in job["artifacts"] if found["kind"] == "archive")
    assert (stored["format"], stored["size_bytes"]) == ("prsz", archive.stat().st_size)
    assert "pressroom unpack" in stored["load"]
    assert job["metrics"]["compressed"]["archive_bytes"] == stored["size_bytes"]
    size = digits.onnx.stat().st_size
    assert job["metrics"]["ratios"]["archive"] == pytest.approx(size / stored["size_bytes"], rel=1e-3)
    assert stored["size_bytes"] < artifact.stat().st_size

    again = tmp_path / "again.onnx"
    command = [sys.executable, "-m", "app.cli.main", "unpack", str(archive), "--output", str(again)]
    subprocess.run(command, check=True, timeout=60)
    assert hashlib.sha256(again.read_bytes()).hexdigest() == hashlib.sha256(artifact.read_bytes()).hexdigest()
    assert accuracy(again) == pytest.approx(job["metrics"]["compressed"]["accuracy"], abs=1e-9)

    refused = service.client.post("/v1/models", json={"artifact": stored["id"]})
    assert refused.status_code == 422
    with archive.open("rb") as file:
        uploaded = service.client.post("/v1/models", files={"file": (archive.name, file)})
    assert uploaded.status_code == 415
    assert "pressroom unpack" in uploaded.text
