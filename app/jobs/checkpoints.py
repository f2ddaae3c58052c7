"""Where the steps of a running job stood last, so that another attempt goes on from there.

A row holds its blob like any other. It goes, and lets go of the blob, in the transaction in which its job ends.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import Session

from app.artifacts.repository import hold_again, release_blob
from app.db import utc_now
from app.jobs.fence import lock_held
from app.jobs.records import CheckpointRecord


@dataclass(frozen=True)
class Kept:
    """What became of a checkpoint.

    Args:
        kept: False if the row already stands further on.
        replaced: The hash that the row named before, if it was another one.
    """

    kept: bool
    replaced: str | None = None


def keep(session: Session, job_id: str, token: int, made: CheckpointRecord) -> Kept:
    """Puts ``made``, whose blob is reserved and stored, in place of the step's older checkpoint.

    Raises:
        LeaseLost: if ``token`` no longer holds the job; nothing has changed then.
    """
    lock_held(session, job_id, token)
    old = session.get(CheckpointRecord, (job_id, made.step))
    if old is not None and (old.finished or not (made.finished or made.update > old.update)):
        return Kept(kept=False)
    hold_again(session, made.sha256, made.size_bytes)
    if old is None:
        session.add(made)
        return Kept(kept=True)
    release_blob(session, old.sha256)
    replaced = old.sha256 if old.sha256 != made.sha256 else None
    old.update, old.finished, old.created_at = made.update, made.finished, utc_now()
    old.sha256, old.size_bytes = made.sha256, made.size_bytes
    return Kept(kept=True, replaced=replaced)


def of_job(session: Session, job_id: str) -> list[CheckpointRecord]:
    """A job's checkpoints, one per step at most."""
    rows = select(CheckpointRecord).where(CheckpointRecord.job_id == job_id).order_by(CheckpointRecord.step)
    return list(session.scalars(rows))


def forget(session: Session, job_id: str, token: int, step: str) -> None:
    """Deletes a checkpoint that cannot be read, so that the step's next one is kept however far it is.

    Raises:
        LeaseLost: if ``token`` no longer holds the job.
    """
    lock_held(session, job_id, token)
    _drop(session, CheckpointRecord.job_id == job_id, CheckpointRecord.step == step)


def drop(session: Session, job_id: str) -> None:
    """Deletes all checkpoints of a job that ends; the caller's transaction holds the job's row."""
    _drop(session, CheckpointRecord.job_id == job_id)


def _drop(session: Session, *conditions: ColumnElement[bool]) -> None:
    gone = delete(CheckpointRecord).where(*conditions).returning(CheckpointRecord.sha256)
    # In one order for everybody, so that no two transactions wait for each other's blobs.
    for sha256 in sorted(session.scalars(gone, execution_options={"synchronize_session": False})):
        release_blob(session, sha256)
