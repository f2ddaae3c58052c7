"""Queries behind what is shown of jobs."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.jobs.records import JobRecord
from app.jobs.repository import SHOWN
from app.jobs.states import TERMINAL, JobState


@dataclass(frozen=True)
class Standing:
    """How far a job's story goes."""

    done: bool
    last_sequence: int


def standing(session: Session, job_id: str) -> Standing | None:
    """The little that a stream of events has to know again and again; None if the job is gone."""
    row = session.execute(select(JobRecord.status, JobRecord.last_sequence).where(JobRecord.id == job_id)).one_or_none()
    return None if row is None else Standing(done=row.status in TERMINAL, last_sequence=row.last_sequence)


def queue_positions(session: Session, jobs: Sequence[JobRecord]) -> dict[str, int]:
    """Of the jobs that are queued: 1 for the one that its queue's workers take next."""
    queued = [job.id for job in jobs if job.status == JobState.QUEUED]
    if not queued:
        return {}
    rank = func.row_number().over(partition_by=JobRecord.capability, order_by=(JobRecord.priority.desc(), JobRecord.id))
    ranked = select(JobRecord.id, rank.label("position")).where(JobRecord.status == JobState.QUEUED).subquery()
    rows = session.execute(select(ranked.c.id, ranked.c.position).where(ranked.c.id.in_(queued)))
    return {row.id: row.position for row in rows}


def running_by_worker(session: Session, project_id: str, worker_ids: Sequence[str]) -> dict[str, list[str]]:
    """The project's jobs that each of the workers runs at the moment."""
    rows = session.execute(
        select(JobRecord.worker_id, JobRecord.id)
        .where(
            JobRecord.project_id == project_id,
            JobRecord.kind.in_(SHOWN),
            JobRecord.status.in_((JobState.RUNNING, JobState.CANCELLING)),
            JobRecord.worker_id.in_(worker_ids),
        )
        .order_by(JobRecord.id)
    )
    running: dict[str, list[str]] = {}
    for worker_id, job_id in rows:
        running.setdefault(str(worker_id), []).append(job_id)
    return running
