"""Workers in the database; when one was last heard of is told by the database's clock."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.db import DatabaseNow, utc_now
from app.pagination import Page, newest_first
from app.workers_registry.records import WorkerRecord


def register(
    session: Session,
    *,
    worker_id: str,
    hostname: str,
    pid: int,
    capability: str,
    concurrency: int,
    hardware: dict[str, Any],
    sandbox: dict[str, Any],
    versions: dict[str, str],
) -> None:
    """Enters a worker that has just started."""
    session.add(
        WorkerRecord(
            id=worker_id,
            hostname=hostname,
            pid=pid,
            capability=capability,
            concurrency=concurrency,
            hardware=hardware,
            sandbox=sandbox,
            versions=versions,
            seen_at=DatabaseNow(),
        )
    )
    session.flush()


def seen(session: Session, worker_id: str) -> None:
    """Notes a sign of life."""
    session.execute(update(WorkerRecord).where(WorkerRecord.id == worker_id).values(seen_at=DatabaseNow()))


def stopped(session: Session, worker_id: str) -> None:
    """Notes that a worker said goodbye."""
    session.execute(
        update(WorkerRecord).where(WorkerRecord.id == worker_id).values(seen_at=DatabaseNow(), stopped_at=utc_now())
    )


def list_page(session: Session, page: Page) -> list[WorkerRecord]:
    """Newest first; one row more than ``page.limit`` if there are more."""
    return list(session.scalars(newest_first(select(WorkerRecord), WorkerRecord.id, page)))


def present(session: Session, silence_seconds: float) -> list[WorkerRecord]:
    """Workers that have not stopped and were heard of within ``silence_seconds``."""
    return list(
        session.scalars(
            select(WorkerRecord)
            .where(WorkerRecord.stopped_at.is_(None), WorkerRecord.seen_at > DatabaseNow() - silence_seconds)
            .order_by(WorkerRecord.id)
        )
    )


def now(session: Session) -> float:
    """The database's clock in seconds since 1970."""
    return float(session.scalar(select(DatabaseNow())) or 0.0)


def as_time(seconds: float) -> datetime:
    """A reading of the database's clock as a time."""
    return datetime.fromtimestamp(seconds, UTC)
