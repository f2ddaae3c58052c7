"""Sensitivity maps, kept so that no job measures again what another one has measured."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Json, Record, UtcDateTime, utc_now


class SensitivityRecord(Record):
    """What is known of one model, on one choice of rows, by one way to quantize."""

    __tablename__ = "sensitivities"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    model_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Of the clean form, which is what is measured."""
    measurement: Mapped[str] = mapped_column(String(64), primary_key=True)
    """SHA-256 over all that the map holds for: the rows and the way to quantize among it."""
    content: Mapped[dict[str, Any]] = mapped_column(Json)
    """A ``SensitivityMap`` (specs/sensitivity.py)."""
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
