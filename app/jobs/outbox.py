"""Hints on their way to the broker.

The row is written with the change that makes a job claimable, the message is sent once that has committed, then the row
goes. A crash in between leaves the row, and the sweeper sends it.
"""

import logging
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.broker import Broker, BrokerUnavailable
from app.db import after_commit, utc_now
from app.jobs.records import JobRecord, OutboxRecord

_log = logging.getLogger(__name__)


def enqueue(session: Session, job: JobRecord) -> None:
    """Writes the hint that ``job`` waits, to be sent once the session has committed."""
    row = OutboxRecord(job_id=job.id, capability=job.capability)
    session.add(row)
    session.flush()
    broker: Broker | None = session.info.get("broker")
    if broker is not None:
        after_commit(session, lambda: _send_now(session, broker, row))


def unsent(session: Session, older_than_seconds: float, limit: int = 1000) -> list[OutboxRecord]:
    """Rows that their writer should have sent by now."""
    before = utc_now() - timedelta(seconds=older_than_seconds)
    rows = select(OutboxRecord).where(OutboxRecord.created_at < before).order_by(OutboxRecord.id).limit(limit)
    return list(session.scalars(rows))


def forget(session: Session, rows: list[OutboxRecord]) -> None:
    """Deletes rows whose hints the broker has taken."""
    session.execute(delete(OutboxRecord).where(OutboxRecord.id.in_([row.id for row in rows])))


def _send_now(session: Session, broker: Broker, row: OutboxRecord) -> None:
    # The job is committed already: whatever fails here must not turn its acceptance into an error.
    try:
        broker.hint(row.capability, row.job_id)
        with session.begin():
            forget(session, [row])
    except (BrokerUnavailable, SQLAlchemyError) as error:
        _log.warning("hint for %s left to the sweeper: %s", row.job_id, error)
