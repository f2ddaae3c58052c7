"""Jobs that train, over HTTP: transfer, recovery, adapters and students, on real digits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.live import LiveService
from tests.trained import digits_split, trained, write_npz, write_onnx, write_pt2

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def rows(service: LiveService, files: Path) -> dict[str, str]:
    """Flat digits to learn from and to judge by."""
    train, test = write_npz("mlp", files / "train.npz", train=True), write_npz("mlp", files / "test.npz")
    return {"train": service.ready("dataset", train)["id"], "evaluation": service.ready("dataset", test)["id"]}


@pytest.fixture(scope="module")
def mlp(service: LiveService, files: Path) -> str:
    return str(service.ready("model", write_pt2("mlp", files / "mlp.pt2"))["id"])


def export(network: nn.Module, example: torch.Tensor, path: Path) -> Path:
    shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},)
    torch.export.save(torch.export.export(network.eval(), (example,), dynamic_shapes=shapes), path)
    return path


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(torch.export.load(path).state_dict)


def accuracy(path: Path) -> float:
    _, images, _, labels = digits_split()
    predicted = torch.export.load(path).module()(torch.from_numpy(images)).argmax(dim=1)
    return float((predicted.numpy() == labels).mean())


def events(service: LiveService, job: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        page = service.client.get(f"/v1/jobs/{job['id']}/events?limit=100{after}").json()
        found += [event["data"] for event in page["data"] if event["type"] == kind]
        if not page["has_more"]:
            return found
        after = f"&after={page['next']}"


def test_recovery_wins_back_what_pruning_lost_and_keeps_every_zero(
    service: LiveService, mlp: str, rows: dict[str, str], tmp_path: Path
) -> None:
    prune = {"technique": "prune", "sparsity": 0.9}
    pruned = service.succeeded(mlp, [prune], data=rows)
    recovered = service.succeeded(mlp, [prune, {"technique": "finetune", "method": "recover", "epochs": 15}], data=rows)

    before, after = (job["metrics"]["compressed"] for job in (pruned, recovered))
    assert after["accuracy"] > before["accuracy"] + 0.05
    assert after["accuracy"] > recovered["metrics"]["original"]["accuracy"] - 0.02
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    lost, kept = (weights(service.artifact(job, tmp_path / name)) for job, name in ((pruned, "a"), (recovered, "b")))
    for name, values in lost.items():
        if values.dim() > 1:
            assert torch.equal(values == 0, kept[name] == 0)


def test_curves_arrive_as_events_and_stand_in_the_report(service: LiveService, mlp: str, rows: dict[str, str]) -> None:
    job = service.succeeded(mlp, [{"technique": "finetune", "epochs": 2}], data=rows)

    told = events(service, job, "job.metric")
    losses = [event for event in told if event["name"] == "train/loss"]
    assert [event["step"] for event in losses] == sorted(event["step"] for event in losses)
    report = service.client.get(f"/v1/jobs/{job['id']}/report").json()
    curves = {curve["name"]: curve["points"] for curve in report["steps"][0]["curves"]}
    assert {"train/loss", "train/learning_rate", "validation/loss", "validation/accuracy"} <= curves.keys()
    assert curves["train/loss"] == [[event["step"], event["value"]] for event in losses]
    page = service.client.get(f"/v1/jobs/{job['id']}/report", headers={"Accept": "text/html"}).text
    assert "<svg" in page


def test_a_model_is_moved_to_new_labels(service: LiveService, mlp: str, tmp_path: Path) -> None:
    images, _, labels, _ = digits_split()
    named = np.array(["even", "odd", "zero"])[np.where(labels == 0, 2, labels % 2)]
    lines = [
        '{"inputs": {"input": ' + str([round(float(pixel), 4) for pixel in image]) + '}, "target": "' + name + '"}'
        for image, name in zip(images, named, strict=True)
    ]
    path = tmp_path / "parity.jsonl"
    path.write_text("\n".join(lines), "utf-8")
    dataset = service.ready("dataset", path)["id"]

    job = service.succeeded(mlp, [{"technique": "finetune", "epochs": 8}], data={"train": dataset})

    assert job["metrics"]["compressed"]["accuracy"] > 0.9
    assert job["metrics"]["original"].get("accuracy") is None, "ten digits answer no question about three classes"
    assert weights(service.artifact(job, tmp_path))["4.weight"].shape == (3, 128)


def test_an_adapter_kept_apart_makes_the_merged_model_out_of_the_original(
    service: LiveService, mlp: str, rows: dict[str, str], files: Path, tmp_path: Path
) -> None:
    step = {"technique": "finetune", "method": "lora", "rank": 4, "merge": False, "epochs": 1}
    job = service.succeeded(mlp, [step], data=rows)

    adapter = service.artifact(job, tmp_path, kind="adapter")
    merged = weights(service.artifact(job, tmp_path))
    described = next(found for found in job["artifacts"] if found["kind"] == "adapter")
    assert described["size_bytes"] < 0.2 * (files / "mlp.pt2").stat().st_size
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
    model.load_state_dict(trained("mlp").state_dict())
    snippet = described["load"].replace(described["name"], str(adapter))
    exec(compile(snippet, "load", "exec"), {"model": model})
    assert load_file(adapter).keys() > {"0.weight.lora_down", "2.weight.lora_up"}
    for name, values in model.state_dict().items():
        torch.testing.assert_close(values, merged[name], rtol=1e-5, atol=1e-6)


def test_a_small_student_learns_from_an_onnx_teacher_without_labels(
    service: LiveService, rows: dict[str, str], tmp_path: Path
) -> None:
    images = digits_split()[0]
    unlabelled = tmp_path / "unlabelled.npz"
    np.savez(unlabelled, input=images, x=images)
    test = tmp_path / "test.npz"
    np.savez(test, input=digits_split()[1], x=digits_split()[1], target=digits_split()[3])
    teacher = service.ready("model", write_onnx("mlp", tmp_path / "teacher.onnx"))["id"]
    torch.manual_seed(0)

    class Student(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    path = export(Student(), torch.from_numpy(images[:2]), tmp_path / "student.pt2")
    student = service.ready("model", path)["id"]
    data = {"train": service.ready("dataset", unlabelled)["id"], "evaluation": service.ready("dataset", test)["id"]}
    step = {"technique": "distill", "student": student, "epochs": 60, "learning_rate": 0.01}

    posted = service.submit(teacher, [step], data=data)
    refused = service.client.delete(f"/v1/models/{student}")
    job = service.finished(posted["id"])

    assert refused.status_code == 409, "a student is in use while its job runs"
    assert job["status"] == "succeeded", job["error"]
    made, taught = job["metrics"]["original"], job["metrics"]["compressed"]
    assert job["metrics"]["ratios"]["size"] > 10
    assert taught["accuracy"] > made["accuracy"] - 0.05
    assert accuracy(service.artifact(job, tmp_path)) == pytest.approx(taught["accuracy"], abs=1e-9)


def test_a_training_that_diverges_fails_with_its_step_and_what_to_try(
    service: LiveService, mlp: str, rows: dict[str, str]
) -> None:
    wild = {"technique": "finetune", "optimizer": "sgd", "learning_rate": 10, "max_gradient_norm": 0, "warmup": 0}
    job = service.finished(service.submit(mlp, [{"technique": "prune"}, wild], data=rows)["id"])

    assert job["status"] == "failed"
    error = job["error"]
    assert (error["code"], error["step"]) == ("numerical_failure", "recipe/1")
    assert "update" in error["detail"]
    assert "learning_rate" in error["hint"]
    assert not job["artifacts"]


def test_what_cannot_be_trained_is_refused_when_it_is_submitted(
    service: LiveService, mlp: str, rows: dict[str, str]
) -> None:
    finetune = [{"technique": "finetune"}]
    no_rows = service.client.post("/v1/jobs", json={"model": mlp, "recipe": finetune})
    after_integers = service.client.post(
        "/v1/jobs", json={"model": mlp, "recipe": [{"technique": "quantize"}, *finetune], "data": rows}
    )
    no_student = service.client.post(
        "/v1/jobs",
        json={"model": mlp, "recipe": [{"technique": "distill", "student": "mdl_" + "0" * 26}], "data": rows},
    )

    for response, pointer in (
        (no_rows, "/data/train"), (after_integers, "/recipe/1"), (no_student, "/recipe/0/student"),
    ):  # fmt: skip
        assert response.status_code == 422, response.text
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["errors"][0]["pointer"] == pointer
