"""What models were made from, and what was made from them."""

from sqlalchemy.orm import Session

from app.models import repository
from app.models.records import ModelRecord
from app.models.schemas import Ancestor, Descendant, Lineage

MAX_STEPS = 50
MAX_DESCENDANTS = 500


def lineage(session: Session, model: ModelRecord) -> Lineage:
    """Both directions, through every promotion."""
    return Lineage(model=model.id, made_from=_ancestors(session, model), made=_descendants(session, model))


def _ancestors(session: Session, model: ModelRecord) -> list[Ancestor]:
    steps: list[Ancestor] = []
    current: ModelRecord | None = model
    while current is not None and current.artifact_id is not None and len(steps) < MAX_STEPS:
        made_by = repository.origin(session, model.project_id, current.artifact_id)
        parent_id = made_by[1].model_id if made_by else None
        steps.append(Ancestor(artifact=current.artifact_id, job=made_by[1].id if made_by else None, model=parent_id))
        current = repository.get(session, model.project_id, parent_id) if parent_id else None
    return steps


def _descendants(session: Session, model: ModelRecord) -> list[Descendant]:
    found: list[Descendant] = []
    seen, generation = {model.id}, [model.id]
    while generation and len(found) < MAX_DESCENDANTS:
        artifacts = repository.made_from(session, model.project_id, generation, MAX_DESCENDANTS - len(found))
        promoted = repository.promoted(session, model.project_id, [artifact.id for artifact in artifacts])
        found += [
            Descendant(job=artifact.job_id, artifact=artifact.id, model=promoted.get(artifact.id))
            for artifact in artifacts
        ]
        # A promoted artifact whose bytes equal an earlier model's would lead back to it.
        generation = sorted(set(promoted.values()) - seen)
        seen |= set(generation)
    return found
