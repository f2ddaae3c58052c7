"""Jobs in every state, without a worker: what a runner would write is written directly."""

import hashlib
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.artifacts.records import ArtifactRecord
from app.artifacts.repository import hold_blob, store_file
from app.db import Database
from app.jobs import leases, repository
from app.jobs.records import JobRecord
from app.jobs.states import JobState
from app.storage import Storage
from app.workers_registry import repository as workers

METRICS: dict[str, Any] = {
    "original": {
        "size_bytes": 19_240,
        "parameters": 4810,
        "nonzero_parameters": 4810,
        "bits_per_parameter": 32.0,
        "latency_ms": {"1": {"p50": 0.02, "p95": 0.03}},
        "peak_memory_bytes": 90_000_000,
        "accuracy": 0.944,
        "fidelity": {"cosine": 1.0, "sqnr_db": 120.0, "max_abs_error": 0.0},
        "intervals": {"accuracy": {"n": 360, "low": 0.92, "high": 0.96}},
    },
    "compressed": {
        "size_bytes": 5_500,
        "parameters": 4810,
        "nonzero_parameters": 4805,
        "bits_per_parameter": 8.0,
        "latency_ms": {"1": {"p50": 0.015, "p95": 0.02}},
        "peak_memory_bytes": 80_000_000,
        "accuracy": 0.942,
        "fidelity": {"cosine": 0.999, "sqnr_db": 31.0, "max_abs_error": 0.2},
        "intervals": {"accuracy": {"n": 360, "low": 0.918, "high": 0.958}},
    },
    "ratios": {"size": 3.498, "bits_per_parameter": 4.0, "latency": 1.333},
}

LAYERS: list[dict[str, Any]] = [
    {
        "name": f"dense.{index}",
        "op": "Gemm",
        "parameters": 4096,
        "bytes_before": 16_384,
        "bytes_after": 4_096,
        "bits": 8.0,
        "sparsity": 0.0,
        "sqnr_db": 30.5,
    }
    for index in range(3)
]

STORED: dict[str, Any] = {"name": "digits", "format": "onnx", "sha256": "a" * 64, "size_bytes": 19_240}

REPORT: dict[str, Any] = {
    "object": "report",
    "version": 1,
    "created_at": "2026-11-24T09:30:00.000Z",
    "original": STORED,
    "artifact": STORED | {"sha256": "b" * 64, "size_bytes": 5_500},
    "load": "import onnxruntime",
    "recipe": [{"technique": "quantize", "method": "dynamic"}],
    "seed": 0,
    "steps": [],
    "metrics": METRICS,
    "evaluation": {
        "task": "classification",
        "metric": "accuracy",
        "rows": 360,
        "synthetic": False,
        "split": "All rows.",
    },
    "findings": ["3.5 times smaller"],
    "warnings": [],
    "layers": LAYERS,
    "harness": {"warmup": 10},
    "environment": {"threads": 1},
}


def add_worker(
    session: Session, worker_id: str, *, flags: tuple[str, ...] = ("avx2",), capability: str = "cpu"
) -> None:
    """Registers a worker as if it had just started."""
    workers.register(
        session,
        worker_id=worker_id,
        hostname="press-1",
        pid=4711,
        capability=capability,
        concurrency=1,
        hardware={"cpu": "some CPU", "instruction_sets": list(flags), "cores": 2},
        sandbox={"landlock": True},
        versions={"onnxruntime": "1.32.0"},
    )


def start(database: Database, job_id: str) -> JobRecord:
    """Claims the job as a worker would; it has to be the only one that waits."""
    with database.transaction() as session:
        job = leases.claim(session, "cpu", "wrk_test", 60.0)
    assert job is not None
    assert job.id == job_id
    return job


def succeed(database: Database, job_id: str, **changes: Any) -> JobRecord:
    """Starts the job and ends it well."""
    token = start(database, job_id).token
    with database.transaction() as session:
        ended = {"outcome": "unconstrained", "termination_reason": "completed", "metrics": METRICS, "report": REPORT}
        return leases.finish(session, job_id, token, JobState.SUCCEEDED, **(ended | {"layers": LAYERS} | changes))


def fail(database: Database, job_id: str, error: dict[str, Any]) -> JobRecord:
    """Starts the job and ends it badly."""
    token = start(database, job_id).token
    with database.transaction() as session:
        return leases.finish(session, job_id, token, JobState.FAILED, termination_reason="error", error=error)


def report_progress(database: Database, job: JobRecord, fraction: float) -> str:
    """Adds a progress event; gives its id."""
    progress = {"fraction": fraction, "step": "recipe/0", "message": "Working", "eta_seconds": 1.5}
    with database.transaction() as session:
        event = repository.append_event(session, job, "job.progress", progress, token=job.token, progress=progress)
        session.flush()
        return event.id


def add_artifact(database: Database, storage: Storage, job: JobRecord, folder: Path, name: str, content: bytes) -> str:
    """Stores a file as the job's artifact; gives its hash."""
    path = folder / name
    path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    size_bytes = store_file(database, storage, path, sha256)
    kind = "report" if name.startswith("report.") else "model"
    with database.transaction() as session:
        hold_blob(session, sha256, size_bytes)
        session.add(
            ArtifactRecord(
                project_id=job.project_id,
                job_id=job.id,
                kind=kind,
                format=name.rpartition(".")[2],
                name=name,
                sha256=sha256,
                size_bytes=size_bytes,
            )
        )
    return sha256
