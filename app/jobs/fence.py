"""The fence around a running job: only the claim that holds it may write."""

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app.jobs.records import JobRecord
from app.jobs.states import JobState


class LeaseLost(Exception):
    """The job belongs to someone else by now, or has ended: the writer has to drop what it holds."""


def held_by(token: int) -> tuple[ColumnElement[bool], ...]:
    """The condition: the claim that raised the job's token to this value still holds it."""
    return (JobRecord.token == token, JobRecord.status.in_((JobState.RUNNING, JobState.CANCELLING)))


def lock_held(session: Session, job_id: str, token: int) -> None:
    """Keeps the job held until the transaction ends: whoever wants to take or end it waits.

    Raises:
        LeaseLost: if ``token`` no longer holds it.
    """
    # With ``key_share`` rows that merely name the job may come to be meanwhile, such as events; SQLite locks nothing,
    # its writers take turns.
    held = select(JobRecord.id).where(JobRecord.id == job_id, *held_by(token)).with_for_update(key_share=True)
    if session.scalar(held) is None:
        raise LeaseLost(job_id)
