"""Uploaded datasets."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Json, Record, UtcDateTime, utc_now
from app.ids import new_id


class DatasetRecord(Record):
    """A dataset as it came, and what was found in it."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("dst"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(String(12))
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    filename: Mapped[str] = mapped_column(String(255), default="")
    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    format: Mapped[str | None] = mapped_column(String(20))
    fields: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    """What the uploader stated: ``DatasetFields`` (specs/job.py)."""
    inspection: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """The whole ``DatasetInspection`` (specs/messages.py)."""
    inspection_job_id: Mapped[str | None] = mapped_column(String(40))
    labels: Mapped[dict[str, str]] = mapped_column(Json, default=dict)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    __table_args__ = (Index("ix_datasets_project_list", "project_id", "id"),)
