"""Sensitivities over HTTP: measured once, shown, kept, and gone by in jobs that quantize."""

from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from app.client.client import Client
from tests.e2e.conftest import Digits, accuracy
from tests.live import LiveService

pytestmark = pytest.mark.e2e

OPTIONS = {"bits": [2, 4, 8], "algorithm": "rtn"}


def analyzed(service: LiveService, digits: Digits, **body: Any) -> dict[str, Any]:
    response = service.client.post(f"/v1/models/{digits.model['id']}/analyze", json=OPTIONS | body)
    assert response.status_code == 202, response.text
    job = service.finished(response.json()["id"])
    assert job["status"] == "succeeded", job["error"]
    return job


def result(service: LiveService, job: dict[str, Any], part: str, accept: str = "application/json") -> Any:
    response = service.client.get(f"/v1/jobs/{job['id']}/{part}", headers={"Accept": accept}).raise_for_status()
    return response.json() if accept == "application/json" else response.text


def test_what_one_job_measures_the_next_ones_know(service: LiveService, digits: Digits, tmp_path: Path) -> None:
    job = analyzed(service, digits, data=digits.data)
    assert (job["outcome"], job["termination_reason"], job["metrics"]) == ("unconstrained", "completed", None)
    report = result(service, job, "report")
    assert (report["object"], report["reused"]) == ("analysis_report", False)
    assert not report["sensitivity"]["measured"]["synthetic"]
    by_weight = {weight["name"]: weight["options"] for weight in report["sensitivity"]["weights"]}
    assert len(by_weight) == 3
    for options in by_weight.values():
        assert [option["bits"] for option in options] == [2, 4, 8]
        assert options[0]["error"] > options[1]["error"] > options[2]["error"] > 0
    layers = result(service, job, "layers")["data"]
    assert [layer["sensitivity"] for layer in layers] == [options[1]["error"] for options in by_weight.values()]
    page = result(service, job, "report", "text/markdown")
    assert all(f"| {name} | " in page for name in by_weight)
    assert result(service, job, "report", "text/html").startswith("<!doctype html>")

    again = analyzed(service, digits, data=digits.data)
    assert result(service, again, "report")["reused"]
    assert result(service, again, "report")["sensitivity"] == report["sensitivity"]
    assert "reused" in result(service, again, "logs", "text/plain")

    recipe = [{"technique": "quantize", "method": "mixed", "average_bits": 4.6} | OPTIONS]
    mixed = service.succeeded(digits.model["id"], recipe, data=digits.data)
    assert "sensitivity of 3 weights reused" in result(service, mixed, "logs", "text/plain")
    shown = result(service, mixed, "layers")["data"]
    assert [layer["sensitivity"] for layer in shown] == [layer["sensitivity"] for layer in layers]
    assert mixed["metrics"]["compressed"]["accuracy"] >= mixed["metrics"]["original"]["accuracy"] - 0.02
    artifact = service.artifact(mixed, tmp_path)
    assert mixed["metrics"]["compressed"]["accuracy"] == pytest.approx(accuracy(artifact), abs=1e-9)
    onnxruntime.InferenceSession(artifact, providers=["CPUExecutionProvider"])


def test_without_data_inputs_are_made_up_and_said_to_be(service: LiveService, digits: Digits) -> None:
    report = result(service, analyzed(service, digits, include=["*"], seed=7), "report")
    assert report["sensitivity"]["measured"]["synthetic"]
    assert "made up" in report["rows"]
    assert "loss" not in report["sensitivity"]


def test_a_selection_of_nothing_fails_with_what_to_try(service: LiveService, digits: Digits) -> None:
    with Client(service.url) as client:
        submitted = client.models.analyze(digits.model["id"], include=["no such layer"])
    job = service.finished(submitted.id)
    assert (job["status"], job["error"]["code"]) == ("failed", "unsupported_technique")
    assert "include" in job["error"]["hint"]
