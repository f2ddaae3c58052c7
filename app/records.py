"""Imports every table, so that Alembic and the tests see them all."""

from app.artifacts.records import ArtifactRecord, BlobRecord
from app.datasets.records import DatasetRecord
from app.db import Record
from app.idempotency.records import IdempotencyRecord
from app.jobs.records import EventRecord, JobInputRecord, JobRecord, LeaseRecord, OutboxRecord, TrialRecord
from app.keys.records import KeyRecord, ProjectRecord
from app.models.records import ModelRecord
from app.sensitivities.records import SensitivityRecord
from app.workers_registry.records import WorkerRecord

__all__ = [
    "ArtifactRecord",
    "BlobRecord",
    "DatasetRecord",
    "EventRecord",
    "IdempotencyRecord",
    "JobInputRecord",
    "JobRecord",
    "KeyRecord",
    "LeaseRecord",
    "ModelRecord",
    "OutboxRecord",
    "ProjectRecord",
    "Record",
    "SensitivityRecord",
    "TrialRecord",
    "WorkerRecord",
]
