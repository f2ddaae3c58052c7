"""A worker in this process whose children run the stand-in instead of the engine."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from app.artifacts.repository import hold_blob, store_file
from app.config import Settings
from app.db import Database
from app.jobs import repository
from app.jobs.records import JobRecord
from app.jobs.schemas import JobCreate, JobSpec
from app.models.records import ModelRecord
from app.storage import Storage
from tests.builders import add_project
from workers.workplace import Workplace

RECIPE = [{"technique": "prune", "sparsity": 0.5}]


@pytest.fixture
def workplace(settings: Settings, database: Database, storage: Storage) -> Workplace:
    settings.scratch_dir.mkdir(exist_ok=True)
    quick = {"lease_seconds": 3.0, "heartbeat_seconds": 0.5, "kill_grace_seconds": 0.5, "inspection_cpu_seconds": 1}
    return Workplace(
        settings=settings.model_copy(update=quick),
        database=database,
        storage=storage,
        worker_id="wrk_test",
        program="stand_in",
        program_path=str(Path(__file__).parent),
    )


class Submitter:
    """Puts a stand-in model into the store and a job on it into the database."""

    def __init__(self, workplace: Workplace, folder: Path) -> None:
        self._workplace = workplace
        self._folder = folder

    def compression(self, behaviour: dict[str, str] | None = None, **columns: object) -> JobRecord:
        model = self._model(behaviour or {}, status="ready")
        spec = JobSpec.model_validate(JobCreate(model=model.id, recipe=RECIPE).model_dump(mode="json"))
        return self._create(model, "compress", "cpu", spec.model_dump(mode="json"), columns)

    def inspection(self, behaviour: dict[str, str] | None = None) -> JobRecord:
        model = self._model(behaviour or {}, status="inspecting")
        return self._create(model, "inspect_model", "inspect", {}, {})

    def _model(self, behaviour: dict[str, str], status: str) -> ModelRecord:
        place = self._workplace
        path = self._folder / "model"
        path.write_text(json.dumps(behaviour))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        size = store_file(place.database, place.storage, path, sha256)
        with place.database.transaction() as session:
            hold_blob(session, sha256, size)
            model = ModelRecord(
                project_id=add_project(session).id,
                name="stand-in",
                status=status,
                filename="model.safetensors",
                sha256=sha256,
                clean_sha256=sha256 if status == "ready" else None,
                size_bytes=size,
                format="safetensors",
                family="tensors",
            )
            session.add(model)
        return model

    def _create(
        self, model: ModelRecord, kind: str, capability: str, spec: dict[str, object], columns: dict[str, object]
    ) -> JobRecord:
        fields = {"timeout_seconds": 60.0, "spec": spec} | columns
        with self._workplace.database.transaction() as session:
            job = JobRecord(project_id=model.project_id, kind=kind, capability=capability, model_id=model.id, **fields)
            repository.create(session, job, (model.id,))
        return job


@pytest.fixture
def submit(workplace: Workplace, tmp_path: Path) -> Submitter:
    return Submitter(workplace, tmp_path)


@pytest.fixture
def changes_of(redis_socket: Path) -> Iterator[Callable[[str], Iterator[None]]]:
    """Waits for wake-ups of a job, as a watcher does."""
    with redis.Redis(unix_socket_path=str(redis_socket)) as client, client.pubsub() as listener:

        def changes(job_id: str) -> Iterator[None]:
            listener.subscribe(f"pressroom:{job_id}")
            while True:
                listener.get_message(timeout=0.2)
                yield

        yield changes


def with_settings(workplace: Workplace, **changes: object) -> Workplace:
    return replace(workplace, settings=workplace.settings.model_copy(update=changes))
