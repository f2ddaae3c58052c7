"""Queries over projects and API keys."""

from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.db import utc_now
from app.ids import new_id
from app.keys.records import DEFAULT_PROJECT, KeyRecord, ProjectRecord
from app.pagination import Page, newest_first

LAST_USED_PRECISION = timedelta(minutes=1)


def any_key(session: Session) -> bool:
    """Whether a key was ever made; revoked ones count, so that revoking the last one opens nothing."""
    return session.scalar(select(KeyRecord.id).limit(1)) is not None


def by_public_id(session: Session, public_id: str) -> tuple[KeyRecord, ProjectRecord] | None:
    """The key with this public part and its project."""
    statement = (
        select(KeyRecord, ProjectRecord)
        .join(ProjectRecord, ProjectRecord.id == KeyRecord.project_id)
        .where(KeyRecord.public_id == public_id)
    )
    row = session.execute(statement).one_or_none()
    return (row[0], row[1]) if row else None


def get(session: Session, key_id: str) -> KeyRecord | None:
    """The key, whatever its project: keys are an administrator's business."""
    return session.get(KeyRecord, key_id)


def list_page(session: Session, page: Page) -> list[KeyRecord]:
    """Keys, one more than the page holds."""
    return list(session.scalars(newest_first(select(KeyRecord), KeyRecord.id, page)))


def project_names(session: Session, project_ids: set[str]) -> dict[str, str]:
    """Names by id."""
    statement = select(ProjectRecord.id, ProjectRecord.name).where(ProjectRecord.id.in_(project_ids))
    return {row.id: row.name for row in session.execute(statement)}


def project_by_name(session: Session, name: str) -> ProjectRecord | None:
    """The project of that name."""
    return session.scalar(select(ProjectRecord).where(ProjectRecord.name == name))


def ensure_project(session: Session, name: str = DEFAULT_PROJECT) -> ProjectRecord:
    """The project of that name, made if there is none; two callers at once get the same one."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(ProjectRecord).values(id=new_id("prj"), name=name, created_at=utc_now())
    session.execute(statement.on_conflict_do_nothing(index_elements=[ProjectRecord.name]))
    return session.scalars(select(ProjectRecord).where(ProjectRecord.name == name)).one()


def mark_used(session: Session, key_id: str, now: datetime) -> None:
    """Notes that the key was used, to the minute: a write per request would be wasted."""
    session.execute(update(KeyRecord).where(KeyRecord.id == key_id).values(last_used_at=now))


def needs_marking(key: KeyRecord, now: datetime) -> bool:
    """Whether the last use noted is more than a minute old."""
    return key.last_used_at is None or now - key.last_used_at > LAST_USED_PRECISION


def revoke(session: Session, key: KeyRecord) -> None:
    """Ends the key; its row stays, so that keyless access stays closed."""
    key.revoked_at = key.revoked_at or utc_now()
    session.flush()
