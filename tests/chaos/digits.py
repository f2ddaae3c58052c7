"""A real job for the real engine: the digits network, quantized."""

import hashlib
from pathlib import Path

from app.artifacts.repository import hold_blob, store_file
from app.datasets.records import DatasetRecord
from app.jobs import repository
from app.jobs.records import JobRecord
from app.jobs.schemas import JobCreate, JobSpec
from app.jobs.splitting import split_roles
from app.models.records import ModelRecord
from tests.builders import add_project
from tests.chaos.cluster import Cluster
from tests.trained import write_npz, write_onnx


def submit_digits(cluster: Cluster, folder: Path) -> JobRecord:
    """A dynamic quantization with labelled evaluation data."""
    model, dataset = _store(cluster, folder)
    request = JobCreate.model_validate(
        {
            "model": model.id,
            "data": {"evaluation": dataset.id},
            "recipe": [{"technique": "quantize", "method": "dynamic"}],
            "evaluation": {"batch_sizes": [1], "repeats": 5, "max_samples": 100},
        }
    )
    spec = JobSpec(**dict(request), split=split_roles(request))
    with cluster.database.transaction() as session:
        job = JobRecord(
            project_id=model.project_id,
            kind="compress",
            capability="cpu",
            model_id=model.id,
            spec=spec.model_dump(mode="json"),
            timeout_seconds=120.0,
        )
        repository.create(session, job, (model.id, dataset.id))
    return job


def _store(cluster: Cluster, folder: Path) -> tuple[ModelRecord, DatasetRecord]:
    paths = write_onnx("mlp", folder / "digits.onnx"), write_npz("mlp", folder / "digits.npz")
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    sizes = [
        store_file(cluster.database, cluster.storage, path, sha256) for path, sha256 in zip(paths, hashes, strict=True)
    ]
    with cluster.database.transaction() as session:
        project_id = add_project(session).id
        for sha256, size in zip(hashes, sizes, strict=True):
            hold_blob(session, sha256, size)
        model = ModelRecord(
            project_id=project_id,
            name="digits",
            status="ready",
            sha256=hashes[0],
            clean_sha256=hashes[0],
            size_bytes=sizes[0],
            format="onnx",
            family="neural_network",
        )
        dataset = DatasetRecord(
            project_id=project_id,
            name="digits",
            status="ready",
            sha256=hashes[1],
            size_bytes=sizes[1],
            format="npz",
            fields={},
        )
        session.add_all((model, dataset))
    return model, dataset
