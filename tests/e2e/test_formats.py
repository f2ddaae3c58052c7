"""Every format of model and dataset through the service, on trained models and real data."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import skops.io
import torch
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from tests.e2e.conftest import Digits
from tests.live import LiveService
from tests.trained import digits_split, forest, trained, write_npz, write_onnx, write_pt2, write_skops

pytestmark = pytest.mark.e2e

DYNAMIC = [{"technique": "quantize"}]
FLOAT16 = [{"technique": "quantize", "method": "float16"}]
BRIEF: dict[str, Any] = {"repeats": 10, "batch_sizes": [1]}
"""Timing is not what these tests are about."""


def test_exported_program_becomes_int8_and_runs(service: LiveService, digits: Digits, tmp_path: Path) -> None:
    model = service.ready("model", write_pt2("mlp", tmp_path / "digits.pt2"))

    job = service.succeeded(model["id"], DYNAMIC, data={"evaluation": digits.test["id"]}, evaluation=BRIEF)

    assert (model["format"], model["family"]) == ("pt2", "neural_network")
    assert job["metrics"]["ratios"]["size"] > 2.5
    _, images, _, labels = digits_split()
    program = torch.export.load(service.artifact(job, tmp_path)).module()
    with torch.no_grad():
        predicted = program(torch.from_numpy(images)).argmax(1).numpy()
    assert job["metrics"]["compressed"]["accuracy"] == pytest.approx(np.mean(predicted == labels), abs=1e-9)
    assert job["metrics"]["compressed"]["accuracy"] >= job["metrics"]["original"]["accuracy"] - 0.01


@pytest.mark.parametrize("recipe", [FLOAT16, [{"technique": "prune", "sparsity": 0.7}]], ids=["float16", "prune"])
def test_safetensors_come_back_smaller_or_sparser(
    recipe: list[dict[str, Any]], service: LiveService, tmp_path: Path
) -> None:
    path = tmp_path / "digits.safetensors"
    safetensors.torch.save_file(trained("cnn").state_dict(), path)
    model = service.ready("model", path)

    job = service.succeeded(model["id"], recipe, evaluation=BRIEF)

    assert (model["format"], model["family"]) == ("safetensors", "tensors")
    tensors = safetensors.torch.load_file(service.artifact(job, tmp_path))
    assert set(tensors) == set(trained("cnn").state_dict())
    weights = [value for name, value in tensors.items() if name.endswith("weight") and value.ndim > 1]
    if recipe == FLOAT16:
        assert {weight.dtype for weight in weights} == {torch.float16}
        assert job["metrics"]["ratios"]["size"] > 1.8
    else:
        zeros = sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
        assert zeros == pytest.approx(0.7, abs=0.02)


def test_checkpoint_loses_its_optimizer_but_that_counts_as_no_compression(service: LiveService, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    network = trained("mlp")
    optimizer = torch.optim.Adam(network.parameters())
    sum(parameter.sum() for parameter in network.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    network.zero_grad()
    torch.save({"model_state_dict": network.state_dict(), "optimizer": optimizer.state_dict()}, path)
    model = service.ready("model", path)

    job = service.succeeded(model["id"], FLOAT16, evaluation=BRIEF)

    assert model["format"] == "torch_state_dict"
    assert job["metrics"]["ratios"]["size"] < 2.2
    restored = torch.load(service.artifact(job, tmp_path), weights_only=True)
    assert set(restored) == set(network.state_dict())


def cancer(folder: Path) -> tuple[Path, Path, Path, Any]:
    """A forest on the real breast cancer table as skops, with its train and test rows as CSV and Parquet."""
    table = load_breast_cancer()
    x_train, x_test, y_train, y_test = train_test_split(table.data, table.target, test_size=0.4, random_state=0)
    model = RandomForestClassifier(60, random_state=0).fit(x_train, y_train)
    skops.io.dump(model, folder / "cancer.skops")
    names = [f"f{index}" for index in range(x_train.shape[1])]
    header = ",".join([*names, "target"])
    rows = np.column_stack([x_train, y_train])
    np.savetxt(folder / "train.csv", rows, delimiter=",", header=header, comments="", fmt="%.10g")
    columns = {name: x_test[:, index] for index, name in enumerate(names)} | {"target": y_test}
    pq.write_table(pa.table(columns), folder / "test.parquet")
    return folder / "cancer.skops", folder / "train.csv", folder / "test.parquet", (model, x_test, y_test)


LEAST_RATIO = {"cost_complexity": 1.02, "ensemble": 2.0}
"""The trees of this table are so small that their descriptions outweigh their nodes."""
TREE_RECIPES: dict[str, dict[str, Any]] = {
    "cost_complexity": {"technique": "prune", "method": "cost_complexity", "alpha": 0.01},
    "ensemble": {"technique": "prune", "method": "ensemble", "keep": 0.3},
}


@pytest.mark.parametrize("method", [pytest.param("cost_complexity", marks=pytest.mark.long), "ensemble"])
def test_forest_is_pruned_and_still_predicts(method: str, service: LiveService, tmp_path: Path) -> None:
    model_file, train_file, test_file, (original, x_test, y_test) = cancer(tmp_path)
    model = service.ready("model", model_file)
    train, test = service.ready("dataset", train_file), service.ready("dataset", test_file)
    data = {"calibration": train["id"], "evaluation": test["id"]}

    job = service.succeeded(model["id"], [TREE_RECIPES[method]], data=data, evaluation=BRIEF)

    assert (model["format"], model["family"]) == ("skops", "tree_ensemble")
    assert (train["format"], test["format"]) == ("csv", "parquet")
    assert train["task"] == test["task"] == "classification"
    assert job["metrics"]["original"]["accuracy"] == pytest.approx(original.score(x_test, y_test), abs=1e-9)
    artifact = service.artifact(job, tmp_path)
    smaller = skops.io.load(artifact, trusted=skops.io.get_untrusted_types(file=artifact))
    assert job["metrics"]["compressed"]["accuracy"] == pytest.approx(smaller.score(x_test, y_test), abs=1e-9)
    assert job["metrics"]["compressed"]["accuracy"] > job["metrics"]["original"]["accuracy"] - 0.03
    assert job["metrics"]["ratios"]["size"] > LEAST_RATIO[method]


def test_digits_forest_takes_the_same_npz_as_the_network(service: LiveService, digits: Digits, tmp_path: Path) -> None:
    model = service.ready("model", write_skops(tmp_path / "forest.skops", 20))

    job = service.succeeded(
        model["id"], [TREE_RECIPES["cost_complexity"]], data={"evaluation": digits.test["id"]}, evaluation=BRIEF
    )

    _, images, _, labels = digits_split()
    assert job["metrics"]["original"]["accuracy"] == pytest.approx(forest(20).score(images, labels), abs=1e-9)
    assert job["metrics"]["ratios"]["size"] > 1.3


def write_csv(folder: Path) -> tuple[Path, dict[str, str]]:
    _, images, _, labels = digits_split()
    path = folder / "digits.csv"
    header = ",".join([*(f"p{index}" for index in range(64)), "digit"])
    np.savetxt(path, np.column_stack([images, labels]), delimiter=",", header=header, comments="", fmt="%.9g")
    return path, {"target_column": "digit"}


def write_parquet(folder: Path) -> tuple[Path, dict[str, str]]:
    _, images, _, labels = digits_split()
    path = folder / "digits.parquet"
    pq.write_table(pa.table({f"p{index}": images[:, index] for index in range(64)} | {"target": labels}), path)
    return path, {}


def write_jsonl(folder: Path) -> tuple[Path, dict[str, str]]:
    _, images, _, labels = digits_split()
    path = folder / "digits.jsonl"
    rows = (
        {"inputs": {"input": image.tolist()}, "target": int(label)} for image, label in zip(images, labels, strict=True)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path, {}


@pytest.mark.parametrize("write", [write_csv, write_parquet, write_jsonl], ids=["csv", "parquet", "jsonl"])
def test_table_of_any_kind_gives_the_accuracy_of_the_npz(
    write: Callable[[Path], tuple[Path, dict[str, str]]],
    service: LiveService,
    digits: Digits,
    quantized: dict[str, Any],
    tmp_path: Path,
) -> None:
    path, fields = write(tmp_path)
    data = service.ready("dataset", path, **fields)

    job = service.succeeded(digits.model["id"], DYNAMIC, data={"evaluation": data["id"]}, evaluation=BRIEF)

    assert data["rows"] == len(digits_split()[1])
    for side in ("original", "compressed"):
        assert job["metrics"][side]["accuracy"] == quantized["metrics"][side]["accuracy"]


def test_image_folders_feed_a_convolutional_network(service: LiveService, tmp_path: Path) -> None:
    _, images, _, labels = digits_split()
    archive = tmp_path / "digits.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            out = io.BytesIO()
            Image.fromarray(np.round(image.reshape(8, 8) * 255).astype(np.uint8)).save(out, "PNG")
            file.writestr(f"{label}/{index}.png", out.getvalue())
    model = service.ready("model", write_onnx("cnn", tmp_path / "cnn.onnx"))
    preprocessing = json.dumps({"size": [8, 8], "layout": "nchw"})
    data = service.ready("dataset", archive, preprocessing=preprocessing)
    reference = service.ready("dataset", write_npz("cnn", tmp_path / "cnn.npz"))

    by_image = service.succeeded(model["id"], FLOAT16, data={"evaluation": data["id"]}, evaluation=BRIEF)
    by_array = service.succeeded(model["id"], FLOAT16, data={"evaluation": reference["id"]}, evaluation=BRIEF)

    assert data["format"] == "image_folder"
    expected = by_array["metrics"]["original"]["accuracy"]
    assert by_image["metrics"]["original"]["accuracy"] == pytest.approx(expected, abs=0.01)


@pytest.mark.long
def test_regression_forest_is_judged_by_its_error(service: LiveService, tmp_path: Path) -> None:
    from sklearn.ensemble import RandomForestRegressor

    x, y = load_diabetes(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.4, random_state=0)
    original = RandomForestRegressor(30, random_state=0).fit(x_train, y_train)
    skops.io.dump(original, tmp_path / "diabetes.skops")
    np.savez(tmp_path / "test.npz", input=x_test, target=y_test)
    model = service.ready("model", tmp_path / "diabetes.skops")
    data = service.ready("dataset", tmp_path / "test.npz")

    recipe = [{"technique": "prune", "method": "cost_complexity", "alpha": 30.0}]
    job = service.succeeded(model["id"], recipe, data={"evaluation": data["id"]}, evaluation=BRIEF)

    assert data["task"] == "regression"
    error = float(np.sqrt(np.mean((original.predict(x_test) - y_test) ** 2)))
    assert job["metrics"]["original"]["rmse"] == pytest.approx(error, rel=1e-6)
    assert job["metrics"]["compressed"]["rmse"] < 1.1 * error


def test_data_that_does_not_fit_the_model_is_refused_at_submit(
    service: LiveService, digits: Digits, tmp_path: Path
) -> None:
    np.savez(tmp_path / "narrow.npz", input=np.zeros((20, 7), np.float32), target=np.arange(20) % 10)
    data = service.ready("dataset", tmp_path / "narrow.npz")

    body = {"model": digits.model["id"], "recipe": DYNAMIC, "data": {"evaluation": data["id"]}}
    response = service.client.post("/v1/jobs", json=body)

    assert response.status_code == 422
    assert response.json()["code"] == "dataset_mismatch"


def test_techniques_say_what_applies_to_a_model(service: LiveService, digits: Digits) -> None:
    query = {"model": digits.model["id"], "limit": 100}
    listed = service.client.get("/v1/techniques", params=query).raise_for_status().json()["data"]

    applies = {f"{entry['technique']}.{entry['method']}": entry["applies"] for entry in listed}
    assert applies["quantize.dynamic"] is True
    assert applies["prune.cost_complexity"] is False
    assert all(entry["why_not"] for entry in listed if not entry["applies"])
