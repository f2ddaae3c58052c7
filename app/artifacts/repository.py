"""Queries over artifacts, and the reference counts that keep blobs alive.

The order that makes garbage collection safe: *reserve* the hash in a transaction of its own, put the bytes, then
*hold* it in the transaction that writes the row which names it. From the reservation on the collector leaves the hash
alone for the grace period, and a collector that was just deleting it is waited for, because both touch the same row.
"""

from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import ColumnElement, CursorResult, Select, delete, false, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.artifacts.records import ArtifactRecord, BlobRecord
from app.db import Database, utc_now
from app.storage import Storage

COLLECT_BATCH = 200


def get(session: Session, project_id: str, artifact_id: str) -> ArtifactRecord | None:
    """The project's artifact."""
    return session.scalar(
        select(ArtifactRecord).where(ArtifactRecord.id == artifact_id, ArtifactRecord.project_id == project_id)
    )


def of_job(session: Session, job_id: str) -> list[ArtifactRecord]:
    """A job's artifacts in the order they were made."""
    return list(
        session.scalars(select(ArtifactRecord).where(ArtifactRecord.job_id == job_id).order_by(ArtifactRecord.id))
    )


def of_jobs(session: Session, job_ids: list[str]) -> list[ArtifactRecord]:
    """The artifacts of several jobs at once, for lists."""
    statement = select(ArtifactRecord).where(ArtifactRecord.job_id.in_(job_ids)).order_by(ArtifactRecord.id)
    return list(session.scalars(statement))


def delete_of_job(session: Session, job_id: str) -> None:
    """Deletes a job's artifacts and lets go of their blobs."""
    for artifact in of_job(session, job_id):
        release_blob(session, artifact.sha256)
        session.delete(artifact)
    session.flush()


def reserve_blob(session: Session, sha256: str, size_bytes: int) -> None:
    """Makes sure that the hash has a live row, and that the collector leaves it alone for the grace period."""
    _upsert(session, sha256, size_bytes, references=0)


def hold_blob(session: Session, sha256: str, size_bytes: int) -> None:
    """Counts one more row that names the hash."""
    _upsert(session, sha256, size_bytes, references=1)


def hold_again(session: Session, sha256: str, size_bytes: int) -> None:
    """As ``hold_blob``, by the very writer that reserved the hash: the blob stays unshared if it is."""
    _upsert(session, sha256, size_bytes, references=1, again=True)


def release_blob(session: Session, sha256: str) -> None:
    """Counts one row less that names the hash; the collector takes it once the grace period is over."""
    session.execute(
        update(BlobRecord)
        .where(BlobRecord.sha256 == sha256, BlobRecord.references > 0)
        .values(references=BlobRecord.references - 1, touched_at=utc_now())
    )


def store_file(database: Database, storage: Storage, path: Path, sha256: str, *, move: bool = False) -> int:
    """Reserves the hash and puts the file's bytes; the caller then holds it together with its row.

    Returns:
        The file's size in bytes.
    """
    size_bytes = path.stat().st_size
    with database.transaction() as session:
        reserve_blob(session, sha256, size_bytes)
    storage.put_file(path, sha256, move=move)
    return size_bytes


def discard_blob(database: Database, storage: Storage, sha256: str) -> bool:
    """Deletes a blob at once if no row names it and nobody but the caller ever knew its hash.

    For files that are replaced faster than the collector comes; any other blob is left to it.

    Returns:
        Whether it is gone.
    """
    return _delete_blob(database, storage, sha256, BlobRecord.unshared.is_(True))


def collect_blobs(database: Database, storage: Storage, grace_seconds: float) -> int:
    """One round of garbage collection; many processes may run it at once.

    A blob without references that nobody touched for the grace period is first marked ``deleting``; when another
    grace period passed without anyone wanting it, its row and its bytes go.

    Returns:
        How many blobs were deleted.
    """
    before = utc_now() - timedelta(seconds=grace_seconds)
    with database.reading() as session:
        doomed = list(session.scalars(_unwanted("deleting", before)))
        idle = list(session.scalars(_unwanted("live", before)))
    expired = (BlobRecord.state == "deleting", BlobRecord.touched_at <= before)
    deleted = sum(_delete_blob(database, storage, sha256, *expired) for sha256 in doomed)
    if idle:
        with database.transaction() as session:
            session.execute(
                update(BlobRecord)
                .where(
                    BlobRecord.sha256.in_(idle),
                    BlobRecord.state == "live",
                    BlobRecord.references == 0,
                    BlobRecord.touched_at <= before,
                )
                .values(state="deleting", touched_at=utc_now())
            )
    return deleted


def _unwanted(state: str, before: datetime) -> Select[str]:
    return (
        select(BlobRecord.sha256)
        .where(BlobRecord.state == state, BlobRecord.references == 0, BlobRecord.touched_at <= before)
        .limit(COLLECT_BATCH)
    )


def _delete_blob(database: Database, storage: Storage, sha256: str, *conditions: ColumnElement[bool]) -> bool:
    # The bytes go while the row is locked: whoever reserves the hash meanwhile waits, and puts the bytes again.
    with database.transaction() as session:
        result = session.execute(
            delete(BlobRecord).where(BlobRecord.sha256 == sha256, BlobRecord.references == 0, *conditions)
        )
        if not isinstance(result, CursorResult) or result.rowcount != 1:
            return False
        storage.delete(sha256)
        return True


def _upsert(session: Session, sha256: str, size_bytes: int, *, references: int, again: bool = False) -> None:
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(BlobRecord).values(
        sha256=sha256, size_bytes=size_bytes, state="live", references=references, unshared=True, touched_at=utc_now()
    )
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[BlobRecord.sha256],
            set_={
                "state": "live",
                "references": BlobRecord.references + references,
                "unshared": BlobRecord.unshared if again else false(),
                "touched_at": utc_now(),
            },
        )
    )
