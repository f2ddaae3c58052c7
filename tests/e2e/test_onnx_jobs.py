"""The main job: a trained ONNX network in, a smaller one out that does what the report says."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.e2e.conftest import Digits, accuracy
from tests.live import LiveService

pytestmark = pytest.mark.e2e

RECIPES: dict[str, list[dict[str, Any]]] = {
    "dynamic": [{"technique": "quantize"}],
    "static": [{"technique": "quantize", "method": "static"}],
    "float16": [{"technique": "quantize", "method": "float16"}],
    "prune": [{"technique": "prune", "sparsity": 0.6}],
    "prune_then_quantize": [{"technique": "prune", "sparsity": 0.5, "scope": "layer"}, {"technique": "quantize"}],
}
SIZE_RATIO = {"dynamic": 3.3, "static": 3.0, "float16": 1.9, "prune": 0.99, "prune_then_quantize": 3.3}
"""Scales, zero points and the graph itself weigh in a file as small as this one."""
BATCH_NOISE = {"dynamic": 0.003, "static": 1e-9, "float16": 1e-9, "prune": 1e-9, "prune_then_quantize": 0.003}
"""Dynamic ranges are those of a batch, so a digit or two may change with the size of the batches."""
DROP = {"dynamic": 0.01, "static": 0.02, "float16": 0.005, "prune": 0.05, "prune_then_quantize": 0.05}


@pytest.mark.parametrize("name", RECIPES)
def test_artifact_does_what_the_report_says(name: str, service: LiveService, digits: Digits, tmp_path: Path) -> None:
    job = service.succeeded(digits.model["id"], RECIPES[name], data=digits.data)

    original, compressed, ratios = (job["metrics"][side] for side in ("original", "compressed", "ratios"))
    artifact = service.artifact(job, tmp_path)
    stored = next(found for found in job["artifacts"] if found["kind"] == "model")
    assert hashlib.sha256(artifact.read_bytes()).hexdigest() == stored["sha256"]
    assert artifact.stat().st_size == stored["size_bytes"] == compressed["size_bytes"]
    assert original["size_bytes"] == digits.onnx.stat().st_size
    assert ratios["size"] == pytest.approx(original["size_bytes"] / compressed["size_bytes"], rel=1e-3)
    assert ratios["size"] >= SIZE_RATIO[name]
    assert original["accuracy"] == pytest.approx(accuracy(digits.onnx), abs=1e-9)
    assert compressed["accuracy"] == pytest.approx(accuracy(artifact), abs=BATCH_NOISE[name])
    assert compressed["accuracy"] >= original["accuracy"] - DROP[name]
    assert job["outcome"] == "unconstrained"
    assert job["termination_reason"] == "completed"
    assert job["progress"]["fraction"] == 1.0


def test_metrics_are_measured_on_both_sides(quantized: dict[str, Any]) -> None:
    for side in ("original", "compressed"):
        metrics = quantized["metrics"][side]
        for batch in ("1", "8"):
            assert 0 < metrics["latency_ms"][batch]["p50"] <= metrics["latency_ms"][batch]["p95"]
        assert metrics["load_ms"] > 0
        assert metrics["peak_memory_bytes"] > metrics["size_bytes"]
        assert metrics["macs"] == 64 * 256 + 256 * 128 + 128 * 10
        interval = metrics["intervals"]["accuracy"]
        assert interval["low"] <= metrics["accuracy"] <= interval["high"]
    fidelity = quantized["metrics"]["compressed"]["fidelity"]
    assert 0.99 < fidelity["cosine"] <= 1.0
    assert fidelity["top1_agreement"] > 0.98
    assert quantized["metrics"]["compressed"]["bits_per_parameter"] < 10


def test_sparsity_asked_for_is_in_the_file(service: LiveService, digits: Digits, tmp_path: Path) -> None:
    job = service.succeeded(digits.model["id"], RECIPES["prune"], data={"evaluation": digits.test["id"]})

    model = onnx.load(service.artifact(job, tmp_path))
    weights = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer if len(tensor.dims) == 2]
    zeros = sum(int(np.count_nonzero(weight == 0)) for weight in weights)
    assert zeros / sum(weight.size for weight in weights) == pytest.approx(0.6, abs=0.01)
    assert job["metrics"]["compressed"]["nonzero_parameters"] < 0.45 * job["metrics"]["original"]["parameters"]


def test_same_request_gives_the_same_bytes(service: LiveService, digits: Digits, quantized: dict[str, Any]) -> None:
    again = service.succeeded(digits.model["id"], RECIPES["dynamic"], data={"evaluation": digits.test["id"]})

    assert [found["sha256"] for found in again["artifacts"] if found["kind"] == "model"] == [
        found["sha256"] for found in quantized["artifacts"] if found["kind"] == "model"
    ]


def test_a_job_without_data_is_judged_on_synthetic_inputs_and_says_so(service: LiveService, digits: Digits) -> None:
    job = service.succeeded(digits.model["id"], RECIPES["float16"])

    report = service.client.get(f"/v1/jobs/{job['id']}/report").raise_for_status().json()
    assert report["evaluation"]["synthetic"] is True
    assert "accuracy" not in job["metrics"]["compressed"]
    assert job["metrics"]["compressed"]["fidelity"]["cosine"] > 0.999


def test_one_dataset_in_two_roles_is_split(service: LiveService, digits: Digits) -> None:
    data = {"calibration": digits.test["id"], "evaluation": digits.test["id"]}
    job = service.succeeded(digits.model["id"], RECIPES["static"], data=data)

    roles = job["spec"]["split"]["roles"]
    assert roles["calibration"]["part"][1] <= roles["evaluation"]["part"][0] or (
        roles["evaluation"]["part"][1] <= roles["calibration"]["part"][0]
    )
    assert job["spec"]["split"]["summary"]
    assert job["metrics"]["compressed"]["intervals"]["accuracy"]["n"] < digits.test["rows"]


def test_promoted_artifact_feeds_the_next_job(service: LiveService, digits: Digits) -> None:
    pruned = service.succeeded(digits.model["id"], RECIPES["prune"], data={"evaluation": digits.test["id"]})
    artifact = next(found for found in pruned["artifacts"] if found["kind"] == "model")
    response = service.client.post("/v1/models", json={"artifact": artifact["id"], "name": "pruned digits"})
    assert response.status_code in {200, 201, 202}, response.text
    promoted = service.inspected("model", response.json())

    assert promoted["status"] == "ready"
    assert promoted["sha256"] == artifact["sha256"]
    chained = service.succeeded(promoted["id"], RECIPES["dynamic"], data={"evaluation": digits.test["id"]})
    assert chained["metrics"]["original"]["size_bytes"] == artifact["size_bytes"]
    lineage = service.client.get(f"/v1/models/{promoted['id']}/lineage").raise_for_status().json()
    assert digits.model["id"] in str(lineage)


def test_a_recipe_that_compresses_nothing_fails(service: LiveService, digits: Digits) -> None:
    recipe = [{"technique": "quantize", "method": "float16", "include": ["no layer is called this"]}]
    job = service.finished(service.submit(digits.model["id"], recipe)["id"])

    assert job["status"] == "failed"
    assert job["error"]["code"] in {"nothing_compressed", "unsupported_technique"}
    assert job["error"]["owner"] == "caller"
    assert job["termination_reason"] == "error"
