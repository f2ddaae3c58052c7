"""Jobs on models that tell the stand-in engine what to do."""

import hashlib
import json
from pathlib import Path

from app.artifacts.repository import hold_blob, store_file
from app.db import Database
from app.jobs import repository
from app.jobs.records import JobRecord
from app.jobs.schemas import AnalysisSpec, JobCreate, JobSpec
from app.models.records import ModelRecord
from app.storage import Storage
from tests.builders import add_project

PROGRAM_PATH = str(Path(__file__).parent)
RECIPE = [{"technique": "prune", "sparsity": 0.5}]


class Submitter:
    """Puts a stand-in model into the store and a job on it into the database."""

    def __init__(self, database: Database, storage: Storage, folder: Path) -> None:
        self._database = database
        self._storage = storage
        self._folder = folder

    def compression(self, behaviour: dict[str, str] | None = None, **columns: object) -> JobRecord:
        model = self._model(behaviour or {}, status="ready")
        spec = JobSpec.model_validate(JobCreate(model=model.id, recipe=RECIPE).model_dump(mode="json"))
        return self._create(model, "compress", "cpu", spec.model_dump(mode="json"), columns)

    def analysis(self, behaviour: dict[str, str] | None = None, **columns: object) -> JobRecord:
        model = self._model(behaviour or {}, status="ready")
        spec = AnalysisSpec(model=model.id, bits=(4,))
        return self._create(model, "analyze", "cpu", spec.model_dump(mode="json"), columns)

    def inspection(self, behaviour: dict[str, str] | None = None) -> JobRecord:
        model = self._model(behaviour or {}, status="inspecting")
        return self._create(model, "inspect_model", "inspect", {}, {})

    def _model(self, behaviour: dict[str, str], status: str) -> ModelRecord:
        path = self._folder / "model"
        path.write_text(json.dumps(behaviour))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        size = store_file(self._database, self._storage, path, sha256)
        with self._database.transaction() as session:
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
        with self._database.transaction() as session:
            job = JobRecord(project_id=model.project_id, kind=kind, capability=capability, model_id=model.id, **fields)
            repository.create(session, job, (model.id,))
        return job
