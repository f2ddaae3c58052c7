"""What jobs made, and the blobs everything is stored in."""

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Record, UtcDateTime, utc_now
from app.ids import new_id


class BlobRecord(Record):
    """A content-addressed file in the blob store, shared by every row that names its hash."""

    __tablename__ = "blobs"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(10), default="live")
    """``live`` or ``deleting``; an upload that meets ``deleting`` puts the bytes again."""
    references: Mapped[int] = mapped_column(Integer, default=0)
    """Rows that name this hash; kept in the same transaction as those rows."""
    unshared: Mapped[bool] = mapped_column(Boolean, default=False)
    """Only one writer ever knew the hash, so that nobody else can be about to name it: it needs no grace period."""
    touched_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    __table_args__ = (Index("ix_blobs_collect", "state", "references", "touched_at"),)


class ArtifactRecord(Record):
    """A file that a job made."""

    __tablename__ = "artifacts"

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("art"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    kind: Mapped[str] = mapped_column(String(10))
    format: Mapped[str] = mapped_column(String(20))
    name: Mapped[str] = mapped_column(String(255))
    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    load: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    __table_args__ = (Index("ix_artifacts_project_list", "project_id", "id"),)
