"""Who works on a job: claim, renew, give back, take over.

A claim raises the job's token. Whoever lost the lease holds an old token and can change nothing, however late it
wakes up. Leases are measured by the database's clock alone. Every transaction locks the job's row before its lease's,
so that no two of them wait for each other.
"""

from typing import Any, Literal

from sqlalchemy import delete, exists, or_, select, update
from sqlalchemy.orm import Session

from app.db import DatabaseNow, utc_now
from app.jobs import outbox
from app.jobs.fence import LeaseLost, held_by
from app.jobs.records import JobRecord, LeaseRecord
from app.jobs.repository import append_event, end_queued, move, terminal_data
from app.jobs.states import JobState

Hold = Literal["held", "cancelling", "lost"]
Takeover = Literal["requeued", "failed", "cancelled"]

_CLAIMABLE = (
    JobRecord.status == JobState.QUEUED,
    JobRecord.admitted,
    or_(JobRecord.pending_deadline.is_(None), JobRecord.pending_deadline > DatabaseNow()),
)
_BEST_FIRST = (JobRecord.priority.desc(), JobRecord.id)


def claim(session: Session, capability: str, worker_id: str, lease_seconds: float) -> JobRecord | None:
    """Takes the best waiting job of a capability (priority, then age); None if there is none.

    Raises attempt and token, and sets the lease, in the same transaction.
    """
    best = select(JobRecord.id).where(*_CLAIMABLE, JobRecord.capability == capability).order_by(*_BEST_FIRST)
    # PostgreSQL skips rows that another worker is claiming; SQLite ignores the clause, its writers take turns.
    job_id = session.scalar(best.limit(1).with_for_update(skip_locked=True))
    if job_id is None:
        return None
    job = move(
        session,
        job_id,
        JobState.RUNNING,
        token=JobRecord.token + 1,
        attempt=JobRecord.attempt + 1,
        worker_id=worker_id,
        started_at=utc_now(),
        pending_deadline=None,
        progress={},
    )
    if job is None:
        return None
    _drop_lease(session, job.id)
    session.add(
        LeaseRecord(job_id=job.id, token=job.token, worker_id=worker_id, lease_until=DatabaseNow() + lease_seconds)
    )
    append_event(session, job, "job.started", {"attempt": job.attempt, "worker": worker_id})
    return job


def renew(session: Session, job_id: str, token: int, lease_seconds: float) -> Hold:
    """Prolongs a lease that still stands, and tells whether the job is wanted any longer."""
    renewed = session.scalar(
        update(LeaseRecord)
        .where(LeaseRecord.job_id == job_id, LeaseRecord.token == token, LeaseRecord.lease_until > DatabaseNow())
        .values(lease_until=DatabaseNow() + lease_seconds)
        .returning(LeaseRecord.job_id),
        execution_options={"synchronize_session": False},
    )
    if renewed is None:
        return "lost"
    return standing(session, job_id, token)


def standing(session: Session, job_id: str, token: int) -> Hold:
    """Whether the job is still the token's and still wanted; reads only."""
    status = session.scalar(select(JobRecord.status).where(JobRecord.id == job_id, *held_by(token)))
    if status is None:
        return "lost"
    return "cancelling" if status == JobState.CANCELLING else "held"


def finish(session: Session, job_id: str, token: int, state: JobState, **changes: Any) -> JobRecord:
    """Ends a running job, in the same transaction as whatever else the session holds.

    Args:
        changes: Columns of the job: outcome, metrics, error, log …

    Raises:
        LeaseLost: if the token no longer holds the job; the caller's transaction must be rolled back.
    """
    job = move(session, job_id, state, *held_by(token), finished_at=utc_now(), **changes)
    if job is None:
        raise LeaseLost(job_id)
    _drop_lease(session, job_id)
    append_event(session, job, f"job.{state.value}", terminal_data(job))
    return job


def requeue(session: Session, job_id: str, token: int, reason: str, *, refund: bool) -> JobRecord:
    """Puts a running job back into its queue.

    Args:
        refund: Whether the attempt does not count, because the worker stopped for a reason of its own.

    Raises:
        LeaseLost: if the token no longer holds the job, or somebody asked to cancel it.
    """
    attempt = JobRecord.attempt - 1 if refund else JobRecord.attempt
    job = move(session, job_id, JobState.QUEUED, *held_by(token), attempt=attempt, **_waiting_again())
    if job is None:
        raise LeaseLost(job_id)
    _drop_lease(session, job_id)
    _wait_again(session, job, reason)
    return job


def expired(session: Session, limit: int = 100) -> list[LeaseRecord]:
    """Leases that ran out, the oldest first."""
    leases = select(LeaseRecord).where(LeaseRecord.lease_until < DatabaseNow())
    return list(session.scalars(leases.order_by(LeaseRecord.lease_until).limit(limit)))


def take_over(session: Session, lease: LeaseRecord, error: dict[str, Any]) -> tuple[Takeover, JobRecord] | None:
    """Takes a job from a worker whose lease ran out; None if the worker or another sweeper was faster.

    A job that was to be cancelled is cancelled; one with attempts left waits again; any other fails with ``error``.
    """
    ran_out = exists().where(
        LeaseRecord.job_id == lease.job_id, LeaseRecord.token == lease.token, LeaseRecord.lease_until < DatabaseNow()
    )
    fence = (*held_by(lease.token), ran_out)
    again = move(
        session, lease.job_id, JobState.QUEUED, *fence, JobRecord.attempt < JobRecord.max_attempts, **_waiting_again()
    )
    if again is not None:
        _drop_lease(session, again.id)
        _wait_again(session, again, "worker_lost")
        return "requeued", again
    cancelled = move(
        session,
        lease.job_id,
        JobState.CANCELLED,
        *fence,
        sources=frozenset({JobState.CANCELLING}),
        finished_at=utc_now(),
        termination_reason="cancel_requested",
    )
    ended = cancelled or move(
        session,
        lease.job_id,
        JobState.FAILED,
        *fence,
        finished_at=utc_now(),
        termination_reason="worker_lost",
        error=error,
    )
    if ended is None:
        return None
    _drop_lease(session, ended.id)
    append_event(session, ended, f"job.{ended.status}", terminal_data(ended))
    return ("failed" if cancelled is None else "cancelled"), ended


def overdue(session: Session, limit: int = 100) -> list[JobRecord]:
    """Queued jobs whose ``pending_deadline`` has passed."""
    late = select(JobRecord).where(JobRecord.status == JobState.QUEUED, JobRecord.pending_deadline < DatabaseNow())
    return list(session.scalars(late.limit(limit)))


def fail_overdue(session: Session, job: JobRecord, error: dict[str, Any]) -> JobRecord | None:
    """Fails a job that waited too long; None if it was claimed or cancelled meanwhile."""
    return end_queued(session, job.id, JobState.FAILED, termination_reason="error", error=error)


def claimable(session: Session, limit: int = 1000) -> dict[str, list[str]]:
    """Per capability, the ids of jobs that a worker could claim now, the best first."""
    jobs = select(JobRecord.capability, JobRecord.id).where(*_CLAIMABLE).order_by(*_BEST_FIRST).limit(limit)
    by_capability: dict[str, list[str]] = {}
    for capability, job_id in session.execute(jobs):
        by_capability.setdefault(capability, []).append(job_id)
    return by_capability


def attempts_under_way(session: Session) -> set[str]:
    """``job-token`` of every attempt that somebody holds: the names of scratch folders in use."""
    return {f"{job_id}-{token}" for job_id, token in session.execute(select(LeaseRecord.job_id, LeaseRecord.token))}


def _waiting_again() -> dict[str, Any]:
    return {"queued_at": utc_now(), "started_at": None, "worker_id": None, "progress": {}}


def _wait_again(session: Session, job: JobRecord, reason: str) -> None:
    append_event(session, job, "job.requeued", {"reason": reason, "attempt": job.attempt})
    outbox.enqueue(session, job)


def _drop_lease(session: Session, job_id: str) -> None:
    session.execute(
        delete(LeaseRecord).where(LeaseRecord.job_id == job_id), execution_options={"synchronize_session": False}
    )
