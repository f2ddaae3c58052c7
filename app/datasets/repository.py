"""Queries over datasets."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.records import DatasetRecord
from app.db import RowLock, locked
from app.input_states import InputState
from app.pagination import Filters, Page, narrowed, newest_first


def get(session: Session, project_id: str, dataset_id: str, *, lock: RowLock | None = None) -> DatasetRecord | None:
    """The project's dataset, its row locked on request."""
    statement = select(DatasetRecord).where(DatasetRecord.id == dataset_id, DatasetRecord.project_id == project_id)
    return session.scalar(locked(statement, lock))


def find(session: Session, dataset_id: str) -> DatasetRecord | None:
    """The dataset, whatever its project; for what the service does by itself."""
    return session.get(DatasetRecord, dataset_id)


def find_same(session: Session, project_id: str, sha256: str, fields: dict[str, Any]) -> DatasetRecord | None:
    """The project's dataset with these bytes, read the same way, that was not rejected."""
    statement = select(DatasetRecord).where(
        DatasetRecord.project_id == project_id,
        DatasetRecord.sha256 == sha256,
        DatasetRecord.status != InputState.REJECTED,
    )
    same_bytes = session.scalars(statement.order_by(DatasetRecord.id))
    return next((dataset for dataset in same_bytes if dataset.fields == fields), None)


def list_page(session: Session, project_id: str, filters: Filters, page: Page) -> list[DatasetRecord]:
    """Datasets, one more than the page holds."""
    statement = narrowed(
        select(DatasetRecord).where(DatasetRecord.project_id == project_id), DatasetRecord, filters, InputState
    )
    return list(session.scalars(newest_first(statement, DatasetRecord.id, page)))
