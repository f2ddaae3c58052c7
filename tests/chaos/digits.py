"""Real jobs for the real engine: the digits network, quantized or trained on, and tensors to be quantized."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from app.artifacts.repository import hold_blob, store_file
from app.datasets.records import DatasetRecord
from app.jobs import repository
from app.jobs.records import JobRecord
from app.jobs.schemas import JobCreate, JobSpec
from app.jobs.splitting import split_roles
from app.models.records import ModelRecord
from tests.builders import add_project
from tests.chaos.cluster import Cluster
from tests.trained import write_npz, write_onnx, write_pt2

EVALUATION = {"batch_sizes": [1], "repeats": 5, "max_samples": 100}


def submit_digits(cluster: Cluster, folder: Path) -> JobRecord:
    """A dynamic quantization with labelled evaluation data."""
    model = _store_model(cluster, write_onnx("mlp", folder / "digits.onnx"))
    evaluation = _store_dataset(cluster, write_npz("mlp", folder / "digits.npz"))
    recipe = [{"technique": "quantize", "method": "dynamic"}]
    return _submit(cluster, model, {"evaluation": evaluation.id}, recipe)


def submit_training(cluster: Cluster, folder: Path, epochs: float, max_attempts: int = 3) -> JobRecord:
    """A fine-tuning of all weights of the convolutional network; the last ones are taken, whatever they are worth."""
    model = _store_model(cluster, write_pt2("cnn", folder / "digits.pt2"))
    train = _store_dataset(cluster, write_npz("cnn", folder / "train.npz", train=True))
    evaluation = _store_dataset(cluster, write_npz("cnn", folder / "test.npz"))
    recipe = [{"technique": "finetune", "method": "full", "epochs": epochs, "validation": 0.0}]
    roles = {"train": train.id, "evaluation": evaluation.id}
    return _submit(cluster, model, roles, recipe, max_attempts=max_attempts)


def submit_quantization(cluster: Cluster, folder: Path, tensors: int, max_attempts: int = 3) -> JobRecord:
    """Half-quadratic quantization of so many tensors, which takes a while for each."""
    random = torch.Generator().manual_seed(0)
    weights = {f"layers.{number}.weight": torch.randn(256, 1024, generator=random) for number in range(tensors)}
    save_file(weights, folder / "weights.safetensors")
    model = _store_model(cluster, folder / "weights.safetensors")
    recipe = [{"technique": "quantize", "method": "weight_only", "algorithm": "hqq"}]
    return _submit(cluster, model, {}, recipe, max_attempts=max_attempts)


def _submit(
    cluster: Cluster, model: ModelRecord, roles: dict[str, str], recipe: list[dict[str, Any]], **columns: Any
) -> JobRecord:
    request = JobCreate.model_validate({"model": model.id, "data": roles, "recipe": recipe, "evaluation": EVALUATION})
    spec = JobSpec(**dict(request), split=split_roles(request))
    with cluster.database.transaction() as session:
        job = JobRecord(
            project_id=model.project_id,
            kind="compress",
            capability="cpu",
            model_id=model.id,
            spec=spec.model_dump(mode="json"),
            timeout_seconds=300.0,
            **columns,
        )
        repository.create(session, job, (model.id, *roles.values()))
    return job


def _store_model(cluster: Cluster, path: Path) -> ModelRecord:
    sha256, size = _store(cluster, path)
    with cluster.database.transaction() as session:
        hold_blob(session, sha256, size)
        model = ModelRecord(
            project_id=add_project(session).id,
            name="digits",
            status="ready",
            sha256=sha256,
            clean_sha256=sha256,
            size_bytes=size,
            format=path.suffix.removeprefix("."),
            family="tensors" if path.suffix == ".safetensors" else "neural_network",
        )
        session.add(model)
    return model


def _store_dataset(cluster: Cluster, path: Path) -> DatasetRecord:
    sha256, size = _store(cluster, path)
    with cluster.database.transaction() as session:
        hold_blob(session, sha256, size)
        dataset = DatasetRecord(
            project_id=add_project(session).id,
            name="digits",
            status="ready",
            sha256=sha256,
            size_bytes=size,
            format="npz",
            fields={},
        )
        session.add(dataset)
    return dataset


def _store(cluster: Cluster, path: Path) -> tuple[str, int]:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return sha256, store_file(cluster.database, cluster.storage, path, sha256)
