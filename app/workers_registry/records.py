"""Workers that are or were there."""

from datetime import datetime
from typing import Any

from sqlalchemy import Float, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Json, Record, UtcDateTime, utc_now
from app.ids import new_id


class WorkerRecord(Record):
    """A worker process: what it serves, what it runs on, when it was last heard of (database clock)."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("wrk"))
    hostname: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int] = mapped_column(Integer)
    capability: Mapped[str] = mapped_column(String(32))
    concurrency: Mapped[int] = mapped_column(Integer)
    hardware: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    """CPU model, flags that matter (avx2, avx512_vnni …), cores, memory."""
    sandbox: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    """Which layers of the sandbox this machine offers."""
    versions: Mapped[dict[str, str]] = mapped_column(Json, default=dict)
    seen_at: Mapped[float] = mapped_column(Float)
    stopped_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
