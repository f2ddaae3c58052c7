"""The worked examples that articles on compression begin with, and what goes wrong in them: through the API.

A model of three weights is quantized by the min-max formula, pruned by a threshold, and shares its weights with
another. In the articles a constant bias divides by zero, pruning changes a shape, and codes are taken for weights.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
from torch import nn

from tests.live import LiveService

pytestmark = pytest.mark.e2e

WEIGHTS = ((0.5, -1.2, 3.4),)
BIAS = (0.7,)
MIN_MAX: list[dict[str, Any]] = [
    {
        "technique": "quantize",
        "method": "weight_only",
        "bits": 8,
        "scheme": "minmax",
        "granularity": "tensor",
        "range": "minmax",
    }
]
THRESHOLD: list[dict[str, Any]] = [{"technique": "prune", "threshold": 1.0}]
TIE: list[dict[str, Any]] = [{"technique": "share", "method": "tie"}]
BRIEF: dict[str, Any] = {"repeats": 10, "batch_sizes": [1]}
HALF_A_STEP = (3.4 + 1.2) / 255 / 2 + 1e-6


def layer() -> nn.Linear:
    found = nn.Linear(3, 1)
    with torch.no_grad():
        found.weight.copy_(torch.tensor(WEIGHTS))
        found.bias.copy_(torch.tensor(BIAS))
    return found.eval()


@pytest.fixture
def tensors(tmp_path: Path) -> Path:
    path = tmp_path / "three.safetensors"
    safetensors.torch.save_file(dict(layer().state_dict()), path)
    return path


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    path = tmp_path / "three.onnx"
    batch = ({0: torch.export.Dim("batch")},)
    rows = (torch.zeros(2, 3),)
    options: dict[str, Any] = {"input_names": ["input"], "dynamic_shapes": batch, "verbose": False}
    torch.onnx.export(layer(), rows, dynamo=True, **options).save(path)  # type: ignore[union-attr]
    return path


def restored(service: LiveService, job: dict[str, Any], folder: Path) -> dict[str, torch.Tensor]:
    """What the snippet that came with the artifact makes of it, in a process of its own."""
    artifact = service.artifact(job, folder)
    snippet = next(found["load"] for found in job["artifacts"] if found["kind"] == "model")
    name = next(found["name"] for found in job["artifacts"] if found["kind"] == "model")
    if artifact.name != name:
        artifact = artifact.rename(folder / name)
    script = f"{snippet}\nimport json\nprint(json.dumps({{name: t.float().tolist() for name, t in tensors.items()}}))"
    printed = subprocess.run([sys.executable, "-c", script], cwd=folder, check=True, capture_output=True, text=True)
    return {name: torch.tensor(values) for name, values in json.loads(printed.stdout.splitlines()[-1]).items()}


def test_min_max_codes_are_dequantized_and_a_constant_bias_gives_no_nan(
    tensors: Path, service: LiveService, tmp_path: Path
) -> None:
    job = service.succeeded(service.ready("model", tensors)["id"], MIN_MAX, evaluation=BRIEF)

    found = restored(service, job, tmp_path)
    assert found["weight"].shape == (1, 3)
    assert float((found["weight"] - torch.tensor(WEIGHTS)).abs().max()) <= HALF_A_STEP
    assert torch.equal(found["bias"], torch.tensor(BIAS)), "one value is its own code book"
    assert 0.9999 < job["metrics"]["compressed"]["fidelity"]["cosine"] <= 1.0


def test_constant_weights_survive_the_min_max_formula(service: LiveService, tmp_path: Path) -> None:
    path = tmp_path / "constant.safetensors"
    constants = {"layer.weight": torch.full((4, 8), 0.7), "layer.bias": torch.full((4,), 0.7)}
    safetensors.torch.save_file(constants, path)

    job = service.succeeded(service.ready("model", path)["id"], MIN_MAX, evaluation=BRIEF)

    for name, values in restored(service, job, tmp_path).items():
        assert torch.equal(values, constants[name]), name


def test_a_quantized_model_answers_with_numbers_not_with_codes(
    onnx: Path, service: LiveService, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", input=rows)
    data = {"evaluation": service.ready("dataset", tmp_path / "rows.npz")["id"]}

    job = service.succeeded(service.ready("model", onnx)["id"], MIN_MAX, data=data, evaluation=BRIEF)

    session = onnxruntime.InferenceSession(service.artifact(job, tmp_path), providers=["CPUExecutionProvider"])
    expected = rows @ np.array(WEIGHTS, np.float32).T + np.array(BIAS, np.float32)
    np.testing.assert_allclose(
        session.run(None, {session.get_inputs()[0].name: rows})[0],
        expected,
        atol=HALF_A_STEP * np.abs(rows).sum(1).max(),
    )
    assert job["metrics"]["compressed"]["fidelity"]["cosine"] > 0.999


def test_a_threshold_leaves_the_shape_and_the_other_weights_alone(
    tensors: Path, service: LiveService, tmp_path: Path
) -> None:
    job = service.succeeded(service.ready("model", tensors)["id"], THRESHOLD, evaluation=BRIEF)

    found = safetensors.torch.load_file(service.artifact(job, tmp_path))
    assert torch.equal(found["weight"], torch.tensor(((0.0, -1.2, 3.4),)))
    assert torch.equal(found["bias"], torch.tensor(BIAS))
    assert job["metrics"]["compressed"]["nonzero_parameters"] == 3


def test_two_models_share_what_they_have_in_common(service: LiveService, tmp_path: Path) -> None:
    common, first, second = torch.randn(64, 32), torch.randn(8, 64), torch.randn(8, 64)
    both = {
        "first.body.weight": common,
        "first.head.weight": first,
        "second.body.weight": common.clone(),
        "second.head.weight": second,
    }
    path = tmp_path / "two.safetensors"
    safetensors.torch.save_file(both, path)

    job = service.succeeded(service.ready("model", path)["id"], TIE, evaluation=BRIEF)

    shared = common.numel() / (2 * common.numel() + first.numel() + second.numel())
    assert 1 / job["metrics"]["ratios"]["size"] == pytest.approx(1 - shared, abs=0.03)
    found = restored(service, job, tmp_path)
    assert set(found) == set(both)
    for name, values in both.items():
        assert torch.equal(found[name], values), name
