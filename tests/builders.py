"""Rows and requests that tests start from."""

from sqlalchemy.orm import Session

from app.artifacts import repository as artifacts
from app.datasets.records import DatasetRecord
from app.db import Database
from app.keys import repository as keys
from app.keys import service as key_service
from app.keys.records import ProjectRecord
from app.models.records import ModelRecord
from app.security import Scope

SHA256 = "a" * 64

MODEL_INSPECTION = {
    "kind": "model_inspection",
    "format": "onnx",
    "family": "neural_network",
    "parameters": 4810,
    "inputs": [{"name": "input", "shape": ["batch", 64], "dtype": "float32"}],
    "outputs": [{"name": "logits", "shape": ["batch", 10], "dtype": "float32"}],
    "tensors": [{"name": "dense.weight", "shape": [64, 64], "dtype": "float32", "bytes": 16384, "sparsity": 0.0}],
}

DATASET_INSPECTION = {
    "kind": "dataset_inspection",
    "format": "npz",
    "rows": 1797,
    "task": "classification",
    "features": [{"name": "input", "shape": [-1, 64], "dtype": "float32"}],
    "target": {"name": "target", "shape": [-1], "dtype": "int64"},
    "classes": [str(digit) for digit in range(10)],
}


def add_project(session: Session, name: str = "default") -> ProjectRecord:
    """The project of that name."""
    return keys.ensure_project(session, name)


def add_key(database: Database, *scopes: Scope, project: str = "default") -> str:
    """The secret of a new key."""
    with database.transaction() as session:
        return key_service.create(session, project=project, name="test", scopes=scopes, expires_at=None)[1]


def add_model(session: Session, project_id: str, *, sha256: str = SHA256, status: str = "ready") -> ModelRecord:
    """A model as its inspection leaves it; the bytes of its blob are not there."""
    artifacts.hold_blob(session, sha256, 19_240)
    ready = status == "ready"
    model = ModelRecord(
        project_id=project_id,
        name="digits",
        status=status,
        filename="digits.onnx",
        sha256=sha256,
        clean_sha256=sha256 if ready else None,
        size_bytes=19_240,
        format="onnx",
        family="neural_network" if ready else None,
        inspection=MODEL_INSPECTION if ready else None,
    )
    session.add(model)
    session.flush()
    return model


def add_dataset(session: Session, project_id: str, *, sha256: str = SHA256, status: str = "ready") -> DatasetRecord:
    """A labelled dataset as its inspection leaves it; the bytes of its blob are not there."""
    artifacts.hold_blob(session, sha256, 460_000)
    ready = status == "ready"
    dataset = DatasetRecord(
        project_id=project_id,
        name="digits test split",
        status=status,
        filename="digits.npz",
        sha256=sha256,
        size_bytes=460_000,
        format="npz",
        fields={},
        inspection=DATASET_INSPECTION if ready else None,
    )
    session.add(dataset)
    session.flush()
    return dataset


def safetensors(content: bytes = b"") -> bytes:
    """A safetensors file of one row of bytes, the shortest thing that the cheap checks take for a model."""
    data = content or b"\0"
    header = f'{{"w":{{"dtype":"U8","shape":[{len(data)}],"data_offsets":[0,{len(data)}]}}}}'.encode()
    return len(header).to_bytes(8, "little") + header + data
