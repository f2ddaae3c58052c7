"""Jobs in the database. Every change of state is one compare-and-set statement, followed by its event."""

from typing import Any

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session

from app.broker import Broker
from app.db import after_commit, utc_now
from app.jobs import checkpoints, outbox
from app.jobs.fence import LeaseLost, held_by
from app.jobs.records import EventRecord, JobInputRecord, JobRecord
from app.jobs.states import TERMINAL, TRANSITIONS, JobState, sources_of
from app.pagination import Filters, Page, narrowed, newest_first

COMPRESS, ANALYZE = "compress", "analyze"
SHOWN = (COMPRESS, ANALYZE)
"""Kinds of jobs that users ask for; inspections stay hidden."""


def create(session: Session, job: JobRecord, inputs: tuple[str, ...] = ()) -> None:
    """Inserts a queued job with what it uses, its first two events and, if it may run already, its hint."""
    job.status = JobState.QUEUED
    session.add(job)
    session.flush()
    session.add_all(JobInputRecord(job_id=job.id, input_id=input_id) for input_id in sorted(set(inputs)))
    append_event(session, job, "job.created", {})
    append_event(session, job, "job.queued", {"capability": job.capability})
    if job.admitted:
        outbox.enqueue(session, job)


def get(session: Session, project_id: str, job_id: str) -> JobRecord | None:
    """A job of this project that a user asked for."""
    mine = (JobRecord.id == job_id, JobRecord.project_id == project_id, JobRecord.kind.in_(SHOWN))
    return session.scalar(select(JobRecord).where(*mine))


def find(session: Session, job_id: str) -> JobRecord | None:
    """Any job by its id, for the service's own use; read anew even if the session knows it."""
    return session.get(JobRecord, job_id, populate_existing=True)


def list_page(session: Session, project_id: str, filters: Filters, model: str | None, page: Page) -> list[JobRecord]:
    """Newest first; one row more than ``page.limit`` if there are more."""
    jobs = select(JobRecord).where(JobRecord.project_id == project_id, JobRecord.kind.in_(SHOWN))
    if model is not None:
        jobs = jobs.where(JobRecord.model_id == model)
    jobs = narrowed(jobs, JobRecord, filters, JobState)
    return list(session.scalars(newest_first(jobs, JobRecord.id, page)))


def count_queued(session: Session, project_id: str) -> int:
    """Jobs of a project that still wait, inspections not counted."""
    waiting = select(func.count()).where(
        JobRecord.project_id == project_id, JobRecord.kind.in_(SHOWN), JobRecord.status == JobState.QUEUED
    )
    return session.scalar(waiting) or 0


def waiting_for(session: Session, input_id: str) -> list[JobRecord]:
    """Jobs that were accepted while ``input_id`` was still being inspected."""
    jobs = (
        select(JobRecord)
        .join(JobInputRecord, JobInputRecord.job_id == JobRecord.id)
        .where(JobInputRecord.input_id == input_id, JobRecord.status == JobState.QUEUED, JobRecord.admitted.is_(False))
        .order_by(JobRecord.id)
    )
    return list(session.scalars(jobs))


def input_in_use(session: Session, input_id: str) -> bool:
    """Whether a job that has not ended uses the model or dataset."""
    users = (
        select(JobRecord.id)
        .join(JobInputRecord, JobInputRecord.job_id == JobRecord.id)
        .where(JobInputRecord.input_id == input_id, JobRecord.status.not_in(TERMINAL))
    )
    return session.scalar(users.limit(1)) is not None


def events_after(session: Session, job_id: str, sequence: int, limit: int = 1000) -> list[EventRecord]:
    """The job's story from ``sequence`` (exclusive) on, oldest first."""
    events = select(EventRecord).where(EventRecord.job_id == job_id, EventRecord.sequence > sequence)
    return list(session.scalars(events.order_by(EventRecord.sequence).limit(limit)))


def sequence_of(session: Session, job_id: str, event_id: str) -> int | None:
    """The sequence number of one of the job's events."""
    return session.scalar(select(EventRecord.sequence).where(EventRecord.job_id == job_id, EventRecord.id == event_id))


def append_event(
    session: Session, job: JobRecord, kind: str, data: dict[str, Any], token: int | None = None, **changes: Any
) -> EventRecord:
    """Adds the next line to a job's story and wakes its watchers once that has committed.

    Args:
        kind: Type of the event, such as ``job.progress``.
        token: If given, the write is fenced: only the holder of the running job may add to it.
        changes: Columns of the job that change along, such as ``progress``.

    Raises:
        LeaseLost: if ``token`` no longer is the job's.
    """
    # Raising the counter locks the row until the commit, so numbers become visible in order and without gaps.
    counted = (
        update(JobRecord).where(JobRecord.id == job.id).values(last_sequence=JobRecord.last_sequence + 1, **changes)
    )
    if token is not None:
        counted = counted.where(*held_by(token))
    sequence = session.scalar(
        counted.returning(JobRecord.last_sequence), execution_options={"synchronize_session": False}
    )
    if sequence is None:
        raise LeaseLost(job.id)
    event = EventRecord(job_id=job.id, sequence=sequence, type=kind, data=data)
    session.add(event)
    _announce(session, job.id)
    return event


def note(session: Session, job_id: str, token: int, **changes: Any) -> None:
    """Changes columns that are no news to anybody, such as ``log``, if the token still holds the job.

    Raises:
        LeaseLost: if it does not.
    """
    noted = update(JobRecord).where(JobRecord.id == job_id, *held_by(token)).values(**changes).returning(JobRecord.id)
    if session.scalar(noted, execution_options={"synchronize_session": False}) is None:
        raise LeaseLost(job_id)


def move(
    session: Session,
    job_id: str,
    wanted: JobState,
    *conditions: ColumnElement[bool],
    sources: frozenset[JobState] | None = None,
    **changes: Any,
) -> JobRecord | None:
    """The only way a job changes its state: from a state the table allows, if the conditions still hold.

    A job that ends lets go of its checkpoints.

    Returns:
        The job as it is now, or None if somebody else was faster.
    """
    allowed = sources_of(wanted) if sources is None else sources & sources_of(wanted)
    moved = (
        update(JobRecord)
        .where(JobRecord.id == job_id, JobRecord.status.in_(allowed), *conditions)
        .values(status=wanted, **changes)
        .returning(JobRecord)
    )
    job = session.scalar(moved, execution_options={"synchronize_session": False, "populate_existing": True})
    if job is not None and wanted in TERMINAL:
        checkpoints.drop(session, job_id)
    return job


def request_cancel(session: Session, job: JobRecord) -> JobRecord:
    """Cancels a queued job at once and asks the worker of a running one to stop; a finished one stays as it is.

    Returns:
        The job as it is now.
    """
    # The job may be claimed or put back between two of these statements, but not for ever.
    for _ in range(3):
        cancelled = end_queued(session, job.id, JobState.CANCELLED, termination_reason="cancel_requested")
        cancelling = cancelled or move(session, job.id, JobState.CANCELLING)
        if cancelling is not None:
            _announce(session, job.id)
            return cancelling
        job = find(session, job.id) or job
        if job.status != JobState.QUEUED and JobState.CANCELLING not in TRANSITIONS[JobState(job.status)]:
            break
    return job


def end_queued(session: Session, job_id: str, state: JobState, **changes: Any) -> JobRecord | None:
    """Ends a job that no worker holds: cancelled, or failed with ``error``. None if it is not queued (any more)."""
    ended = move(session, job_id, state, sources=frozenset({JobState.QUEUED}), finished_at=utc_now(), **changes)
    if ended is not None:
        append_event(session, ended, f"job.{state.value}", terminal_data(ended))
    return ended


def terminal_data(job: JobRecord) -> dict[str, Any]:
    """What the last event of a job says."""
    data = {"outcome": job.outcome, "termination_reason": job.termination_reason, "error": job.error}
    return {key: value for key, value in data.items() if value is not None}


def admit(session: Session, job: JobRecord) -> bool:
    """Lets a job that waited for an inspection run. False if it no longer waits."""
    admitted = session.scalar(
        update(JobRecord)
        .where(JobRecord.id == job.id, JobRecord.status == JobState.QUEUED, JobRecord.admitted.is_(False))
        .values(admitted=True)
        .returning(JobRecord),
        execution_options={"synchronize_session": False, "populate_existing": True},
    )
    if admitted is None:
        return False
    outbox.enqueue(session, admitted)
    _announce(session, job.id)
    return True


def delete_finished(session: Session, job: JobRecord) -> bool:
    """Deletes a job that has ended, with its events; its artifacts have to be gone already. False if it still runs."""
    gone = delete(JobRecord).where(JobRecord.id == job.id, JobRecord.status.in_(TERMINAL)).returning(JobRecord.id)
    return session.scalar(gone, execution_options={"synchronize_session": False}) is not None


def _announce(session: Session, job_id: str) -> None:
    broker: Broker | None = session.info.get("broker")
    if broker is not None:
        after_commit(session, lambda: broker.wake(job_id))
