"""Queries over models."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.artifacts.records import ArtifactRecord
from app.db import RowLock, locked
from app.input_states import InputState
from app.jobs.records import JobRecord
from app.models.records import ModelRecord
from app.pagination import Filters, Page, narrowed, newest_first


def get(session: Session, project_id: str, model_id: str, *, lock: RowLock | None = None) -> ModelRecord | None:
    """The project's model, its row locked on request."""
    statement = select(ModelRecord).where(ModelRecord.id == model_id, ModelRecord.project_id == project_id)
    return session.scalar(locked(statement, lock))


def find(session: Session, model_id: str) -> ModelRecord | None:
    """The model, whatever its project; for what the service does by itself."""
    return session.get(ModelRecord, model_id)


def find_same(session: Session, project_id: str, sha256: str) -> ModelRecord | None:
    """The project's model with these bytes that was not rejected."""
    statement = select(ModelRecord).where(
        ModelRecord.project_id == project_id, ModelRecord.sha256 == sha256, ModelRecord.status != InputState.REJECTED
    )
    return session.scalar(statement.order_by(ModelRecord.id).limit(1))


def list_page(session: Session, project_id: str, filters: Filters, page: Page) -> list[ModelRecord]:
    """Models, one more than the page holds."""
    statement = narrowed(
        select(ModelRecord).where(ModelRecord.project_id == project_id), ModelRecord, filters, InputState
    )
    return list(session.scalars(newest_first(statement, ModelRecord.id, page)))


def origin(session: Session, project_id: str, artifact_id: str) -> tuple[ArtifactRecord, JobRecord] | None:
    """The artifact a model was promoted from and the job that made it."""
    statement = (
        select(ArtifactRecord, JobRecord)
        .join(JobRecord, JobRecord.id == ArtifactRecord.job_id)
        .where(ArtifactRecord.id == artifact_id, ArtifactRecord.project_id == project_id)
    )
    row = session.execute(statement).one_or_none()
    return (row[0], row[1]) if row else None


def made_from(session: Session, project_id: str, model_ids: Sequence[str], limit: int) -> list[ArtifactRecord]:
    """Model artifacts of the jobs on these models, oldest first."""
    statement = (
        select(ArtifactRecord)
        .join(JobRecord, JobRecord.id == ArtifactRecord.job_id)
        .where(
            JobRecord.model_id.in_(model_ids),
            ArtifactRecord.project_id == project_id,
            ArtifactRecord.kind == "model",
        )
    )
    return list(session.scalars(statement.order_by(ArtifactRecord.id).limit(limit)))


def promoted(session: Session, project_id: str, artifact_ids: Sequence[str]) -> dict[str, str]:
    """Ids of the models promoted from these artifacts, by artifact."""
    statement = select(ModelRecord.artifact_id, ModelRecord.id).where(
        ModelRecord.project_id == project_id, ModelRecord.artifact_id.in_(artifact_ids)
    )
    return {str(row[0]): row[1] for row in session.execute(statement)}
