"""Queries over idempotency keys."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.db import Database, utc_now
from app.idempotency.records import IdempotencyRecord


def claim(session: Session, project_id: str, key: str, kept_seconds: float, abandoned_seconds: float) -> bool:
    """Whether the caller is the first with this key, in which case the key is taken.

    A key that is too old is taken anew, and so is one whose first request was abandoned: its process no longer says
    that it is still at work.
    """
    now = utc_now()
    mine = (IdempotencyRecord.project_id == project_id, IdempotencyRecord.key == key)
    session.execute(
        delete(IdempotencyRecord).where(*mine, IdempotencyRecord.created_at < now - timedelta(seconds=kept_seconds))
    )
    session.execute(
        delete(IdempotencyRecord).where(
            *mine,
            IdempotencyRecord.status.is_(None),
            IdempotencyRecord.created_at < now - timedelta(seconds=abandoned_seconds),
        )
    )
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = (
        insert(IdempotencyRecord)
        .values(project_id=project_id, key=key, fingerprint="", headers={}, body="", created_at=now)
        .on_conflict_do_nothing(index_elements=[IdempotencyRecord.project_id, IdempotencyRecord.key])
        .returning(IdempotencyRecord.key)
    )
    return session.scalar(statement) is not None


def find(session: Session, project_id: str, key: str) -> IdempotencyRecord | None:
    """The key as it stands."""
    return session.get(IdempotencyRecord, (project_id, key))


def touch(session: Session, project_id: str, key: str, now: datetime) -> None:
    """Says that the first request is still at work."""
    session.execute(_under_way(project_id, key).values(created_at=now))


def complete(
    session: Session, project_id: str, key: str, *, fingerprint: str, status: int, headers: dict[str, Any], body: str
) -> None:
    """Keeps the response."""
    values = {"fingerprint": fingerprint, "status": status, "headers": headers, "body": body, "created_at": utc_now()}
    session.execute(_under_way(project_id, key).values(**values))


def forget(session: Session, project_id: str, key: str) -> None:
    """Frees a key whose request came to nothing, so that it can be tried again."""
    session.execute(
        delete(IdempotencyRecord).where(
            IdempotencyRecord.project_id == project_id,
            IdempotencyRecord.key == key,
            IdempotencyRecord.status.is_(None),
        )
    )


def delete_old(database: Database, kept_seconds: float) -> int:
    """Deletes keys that are past their time; for the sweeper."""
    before = utc_now() - timedelta(seconds=kept_seconds)
    with database.transaction() as session:
        gone = delete(IdempotencyRecord).where(IdempotencyRecord.created_at < before).returning(IdempotencyRecord.key)
        return len(session.scalars(gone).all())


def _under_way(project_id: str, key: str) -> Any:
    return update(IdempotencyRecord).where(
        IdempotencyRecord.project_id == project_id, IdempotencyRecord.key == key, IdempotencyRecord.status.is_(None)
    )
