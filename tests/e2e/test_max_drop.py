"""A tolerated drop in place of a sparsity, over HTTP: what was found, on which rows, and what it comes to."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.e2e.conftest import Digits
from tests.live import LiveService
from workers.compression.data import open_dataset
from workers.compression.specs.formats import DatasetFormat
from workers.compression.specs.messages import DatasetFile

pytestmark = pytest.mark.e2e


def rows_of(job: dict[str, Any], role: str, file: Path) -> set[int]:
    split = job["spec"]["split"]
    part = tuple(split["roles"][role]["part"])
    lent = DatasetFile(path=str(file), format=DatasetFormat.NPZ, part=part, split_seed=split["seed"])
    return set(open_dataset(lent).order.tolist())


def test_both_figures_of_the_found_sparsity_are_reported(service: LiveService, digits: Digits, tmp_path: Path) -> None:
    everything = dict.fromkeys(("calibration", "evaluation"), digits.train["id"])
    job = service.succeeded(digits.model["id"], [{"technique": "prune", "max_drop": 0.02}], data=everything)
    numbers = {role: rows_of(job, role, digits.train_file) for role in job["spec"]["split"]["roles"]}
    assert set(numbers) == {"calibration", "selection", "confirmation", "evaluation"}
    assert sum(map(len, numbers.values())) == len(set.union(*numbers.values()))

    report = service.client.get(f"/v1/jobs/{job['id']}/report").raise_for_status().json()
    found = report["steps"][0]["found"]
    assert (found["metric"], found["max_drop"], found["confirmed"]) == ("accuracy", 0.02, True)
    for role in ("selection", "confirmation"):
        judged = found[role]
        assert judged["rows"] == judged["interval"]["n"] == len(numbers[role])
        assert judged["interval"]["low"] <= judged["drop"] <= judged["interval"]["high"]
        assert judged["drop"] == pytest.approx(judged["original"] - judged["compressed"])
        assert judged["drop"] <= 0.02
    assert report["evaluation"]["rows"] == len(numbers["evaluation"])
    assert f"sparsity {found['sparsity']:.2%} found" in report["steps"][0]["changed"]

    layers = service.client.get(f"/v1/jobs/{job['id']}/layers").raise_for_status().json()["data"]
    shares = [layer["sparsity"] for layer in layers]
    assert len({round(share, 2) for share in shares}) > 1
    weights = [
        numpy_helper.to_array(stored)
        for stored in onnx.load(service.artifact(job, tmp_path)).graph.initializer
        if len(stored.dims) == 2
    ]
    zeros = 1.0 - sum(map(np.count_nonzero, weights)) / sum(weight.size for weight in weights)
    assert zeros == pytest.approx(found["sparsity"], abs=1e-3)
    for accept in ("text/markdown", "text/html"):
        page = service.client.get(f"/v1/jobs/{job['id']}/report", headers={"Accept": accept}).raise_for_status().text
        assert "selection rows" in page
        assert f"{found['confirmation']['drop']:.4f}" in page


def test_a_drop_that_nothing_keeps_within_fails_with_what_was_reached(service: LiveService, digits: Digits) -> None:
    request = {"data": {"evaluation": digits.test["id"]}, "evaluation": {"metric": "fidelity"}}
    submitted = service.submit(digits.model["id"], [{"technique": "prune", "max_drop": 0.0}], **request)
    job = service.finished(submitted["id"])
    assert (job["status"], job["error"]["code"]) == ("failed", "constraint_infeasible")
    assert "Even with" in job["error"]["detail"]
    assert job["error"]["hint"]
