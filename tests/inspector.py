"""Answers inspections in place of a worker: claims them from SQL as a worker does, and decides by the bytes."""

import threading
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from app.datasets import service as datasets
from app.datasets.records import DatasetRecord
from app.db import Database
from app.jobs import leases
from app.jobs.records import JobRecord
from app.jobs.states import JobState
from app.models import service as models
from app.models.records import ModelRecord
from app.storage import Storage
from tests.builders import DATASET_INSPECTION, MODEL_INSPECTION
from workers.compression.specs.errors import Code
from workers.compression.specs.messages import DatasetInspection, Failure, ModelInspection

BAD = b"inspection finds this bad"
FAILURE = Failure(code=Code.INVALID_MODEL, detail="A tensor holds NaN.", reason="not_finite")


class Inspector(AbstractContextManager["Inspector"]):
    """Inspects whatever is uploaded while it is entered; bytes that hold ``BAD`` are rejected."""

    def __init__(self, database: Database, storage: Storage) -> None:
        self._database = database
        self._storage = storage
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(10)

    def inspect_next(self) -> bool:
        """Takes one inspection; False if none waits."""
        with self._database.transaction() as session:
            job = leases.claim(session, "inspect", "wrk_test", 30.0)
            if job is None:
                return False
            inspected = session.get(ModelRecord if job.model_id else DatasetRecord, job.model_id or job.dataset_id)
        bad = inspected is None or BAD in self._storage.read(inspected.sha256)
        self._finish(job, FAILURE if bad else None)
        return True

    def _finish(self, job: JobRecord, failure: Failure | None) -> None:
        state = JobState.FAILED if failure else JobState.SUCCEEDED
        with self._database.transaction() as session:
            error = failure.model_dump(mode="json") if failure else None
            ended = leases.finish(session, job.id, job.token, state, error=error)
            if job.model_id:
                found = None if failure else ModelInspection.model_validate(MODEL_INSPECTION)
                models.finish_inspection(session, ended, found, failure, None)
            else:
                data = None if failure else DatasetInspection.model_validate(DATASET_INSPECTION)
                datasets.finish_inspection(session, ended, data, failure, None)

    def _work(self) -> None:
        while not self._stopping.is_set():
            if not self.inspect_next():
                self._stopping.wait(0.02)
