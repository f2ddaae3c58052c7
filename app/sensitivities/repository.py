"""Queries over sensitivity maps."""

import hashlib

from sqlalchemy import Select, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.db import utc_now
from app.sensitivities.records import SensitivityRecord
from workers.compression.specs.sensitivity import SensitivityMap

LENT = 20
"""Maps that a job is told of at most: those that changed last."""


def known(session: Session, project_id: str, model_sha256: str) -> list[SensitivityMap]:
    """The project's maps of a model, those first that changed last."""
    rows = session.scalars(_of_model(project_id, model_sha256).limit(LENT))
    return [SensitivityMap.model_validate(row.content) for row in rows]


def keep(session: Session, project_id: str, made: SensitivityMap) -> None:
    """Notes a map, together with what others noted of the same measurement meanwhile.

    Raises:
        ValueError: The map does not say what model it is of.
    """
    if made.measured.model is None:
        raise ValueError("nobody could find the map of a model that it does not name")
    key = (project_id, made.measured.model, measurement_of(made))
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    content = made.model_dump(mode="json")
    # Two jobs may end at once: whoever comes second finds the other's row here, waits for it, and adds to it.
    session.execute(
        insert(SensitivityRecord)
        .values(project_id=key[0], model_sha256=key[1], measurement=key[2], content=content, updated_at=utc_now())
        .on_conflict_do_nothing()
    )
    row = session.get_one(SensitivityRecord, key, with_for_update=True, populate_existing=True)
    row.content = made.merged(SensitivityMap.model_validate(row.content)).model_dump(mode="json")
    row.updated_at = utc_now()


def forget(session: Session, project_id: str, model_sha256: str) -> None:
    """Deletes all maps of a model that is deleted itself."""
    session.execute(
        delete(SensitivityRecord).where(
            SensitivityRecord.project_id == project_id, SensitivityRecord.model_sha256 == model_sha256
        )
    )


def measurement_of(made: SensitivityMap) -> str:
    """The name of what a map holds for."""
    return hashlib.sha256(made.measured.model_dump_json().encode()).hexdigest()


def _of_model(project_id: str, model_sha256: str) -> Select[SensitivityRecord]:
    return (
        select(SensitivityRecord)
        .where(SensitivityRecord.project_id == project_id, SensitivityRecord.model_sha256 == model_sha256)
        .order_by(SensitivityRecord.updated_at.desc(), SensitivityRecord.measurement)
    )
