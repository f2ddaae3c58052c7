"""Figures for the metrics endpoint."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import DatabaseNow
from app.jobs.records import JobRecord
from app.jobs.states import JobState
from app.workers_registry.records import WorkerRecord

HEARD_WITHIN_SECONDS = 60.0


def jobs_by_status(session: Session) -> dict[str, int]:
    """How many jobs there are, inspections included."""
    counts = session.execute(select(JobRecord.status, func.count()).group_by(JobRecord.status)).all()
    return {state.value: 0 for state in JobState} | {row[0]: row[1] for row in counts}


def queued_by_capability(session: Session) -> dict[str, int]:
    """How many jobs wait for a worker."""
    statement = (
        select(JobRecord.capability, func.count())
        .where(JobRecord.status == JobState.QUEUED, JobRecord.admitted)
        .group_by(JobRecord.capability)
    )
    return {row[0]: row[1] for row in session.execute(statement)}


def workers_by_capability(session: Session) -> dict[str, int]:
    """How many workers were heard of lately."""
    statement = (
        select(WorkerRecord.capability, func.count())
        .where(WorkerRecord.stopped_at.is_(None), WorkerRecord.seen_at > DatabaseNow() - HEARD_WITHIN_SECONDS)
        .group_by(WorkerRecord.capability)
    )
    return {row[0]: row[1] for row in session.execute(statement)}
