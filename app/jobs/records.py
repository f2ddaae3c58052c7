"""Jobs, their leases, checkpoints, events and trials, and the outbox of hints."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Float, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Json, Record, UtcDateTime, utc_now
from app.ids import new_id


class JobRecord(Record):
    """A unit of work: a compression or analysis that a user asked for, or the inspection of an upload (``kind``)."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("job"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    kind: Mapped[str] = mapped_column(String(20))
    """``compress``, ``analyze``, ``inspect_model`` or ``inspect_dataset``; only the first two are shown by the API."""
    status: Mapped[str] = mapped_column(String(12))
    capability: Mapped[str] = mapped_column(String(32))
    priority: Mapped[int] = mapped_column(Integer, default=0)
    """Greater is sooner: low -1, normal 0, high 1."""
    admitted: Mapped[bool] = mapped_column(Boolean, default=True)
    """False while an input is still being inspected; such a job cannot be claimed."""
    model_id: Mapped[str | None] = mapped_column(String(40), index=True)
    dataset_id: Mapped[str | None] = mapped_column(String(40))
    """Only for inspections of a dataset; a compression names its datasets in ``spec.data``."""
    spec: Mapped[dict[str, Any]] = mapped_column(Json)
    labels: Mapped[dict[str, str]] = mapped_column(Json, default=dict)
    token: Mapped[int] = mapped_column(Integer, default=0)
    """Fencing token: raised by every claim, named by every write of a worker."""
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    max_attempts: Mapped[int] = mapped_column(Integer, default=3)
    timeout_seconds: Mapped[float] = mapped_column(Float)
    pending_deadline: Mapped[float | None] = mapped_column(Float)
    """Database time after which a job that is still queued fails as ``timeout``."""
    last_sequence: Mapped[int] = mapped_column(Integer, default=0)
    progress: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    outcome: Mapped[str | None] = mapped_column(String(20))
    termination_reason: Mapped[str | None] = mapped_column(String(20))
    metrics: Mapped[dict[str, Any] | None] = mapped_column(Json)
    layers: Mapped[list[Any] | None] = mapped_column(Json, deferred=True)
    warnings: Mapped[list[str]] = mapped_column(Json, default=list)
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    environment: Mapped[dict[str, Any] | None] = mapped_column(Json)
    report: Mapped[dict[str, Any] | None] = mapped_column(Json, deferred=True)
    log: Mapped[str] = mapped_column(Text, default="", deferred=True)
    worker_id: Mapped[str | None] = mapped_column(String(40))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    queued_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        Index("ix_jobs_claim", "status", "capability", "priority", "id"),
        Index("ix_jobs_project_list", "project_id", "kind", "id"),
    )


class LeaseRecord(Record):
    """Who holds a running job and until when, by the database's clock.

    A row of its own, so that heartbeats do not touch the job's row.
    """

    __tablename__ = "leases"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    token: Mapped[int] = mapped_column(Integer)
    worker_id: Mapped[str] = mapped_column(String(40))
    lease_until: Mapped[float] = mapped_column(Float, index=True)


class CheckpointRecord(Record):
    """Where a step of a job that has not ended stood last."""

    __tablename__ = "checkpoints"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[str] = mapped_column(String(100), primary_key=True)
    """Which step of the recipe, as the engine names it: ``recipe/0``."""
    update: Mapped[int] = mapped_column(BigInteger)
    """How many updates of the weights, or weights in few bits, it holds."""
    finished: Mapped[bool] = mapped_column(Boolean)
    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class JobInputRecord(Record):
    """Which models and datasets a compression uses, so that neither is deleted under it."""

    __tablename__ = "job_inputs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    input_id: Mapped[str] = mapped_column(String(40), primary_key=True, index=True)


class EventRecord(Record):
    """One line of a job's story; only ever added."""

    __tablename__ = "events"

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("evt"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    sequence: Mapped[int] = mapped_column(Integer)
    type: Mapped[str] = mapped_column(String(40))
    data: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    __table_args__ = (UniqueConstraint("job_id", "sequence"),)


class OutboxRecord(Record):
    """A hint that still has to reach the broker; written with the job, deleted once sent."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True
    )
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    capability: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class TrialRecord(Record):
    """One candidate that an objective tried."""

    __tablename__ = "trials"

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("trl"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    number: Mapped[int] = mapped_column(Integer)
    recipe: Mapped[list[Any]] = mapped_column(Json)
    metrics: Mapped[dict[str, Any] | None] = mapped_column(Json)
    feasible: Mapped[bool | None] = mapped_column(Boolean)
    status: Mapped[str] = mapped_column(String(12))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)

    __table_args__ = (UniqueConstraint("job_id", "number"),)
