"""Pruning, sharing values and storing what is left, in one job: Deep Compression on real digits."""

from pathlib import Path

import onnxruntime

from tests.e2e.conftest import Digits
from tests.live import LiveService
from tests.trained import digits_split

TRAINING = {"validation": 0.0, "learning_rate": 2e-3}


def test_one_job_prunes_while_it_trains_and_shares_what_is_left(
    service: LiveService, digits: Digits, tmp_path: Path
) -> None:
    schedule = {"kind": "gradual", "every": 10, "recovery": TRAINING | {"epochs": 20}}
    recipe = [
        {"technique": "prune", "sparsity": 0.95, "schedule": schedule},
        {"technique": "quantize", "method": "kmeans", "bits": 3, "recovery": TRAINING | {"epochs": 3}},
    ]
    data = {"train": digits.train["id"], "evaluation": digits.test["id"]}
    job = service.succeeded(digits.model["id"], recipe, data=data)

    artifact = service.artifact(job, tmp_path)
    session = onnxruntime.InferenceSession(str(artifact), providers=["CPUExecutionProvider"])
    _, images, _, labels = digits_split()
    predicted = session.run(None, {"input": images})[0].argmax(axis=1)
    accuracy = float((predicted == labels).mean())
    assert accuracy == job["metrics"]["compressed"]["accuracy"]
    assert accuracy > job["metrics"]["original"]["accuracy"] - 0.02
    assert artifact.stat().st_size < digits.onnx.stat().st_size / 10


def test_a_schedule_needs_rows_to_train_on(service: LiveService, digits: Digits) -> None:
    recipe = [{"technique": "prune", "sparsity": 0.9, "schedule": {"kind": "rewind"}}]
    answer = service.client.post("/v1/jobs", json={"model": digits.model["id"], "recipe": recipe})

    assert answer.status_code == 422
    assert "train" in answer.text
