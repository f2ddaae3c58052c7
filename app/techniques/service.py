"""The catalogue: every step there is a spec for, and a measured run that shows what it does."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy.orm import Session

from app.errors import Conflict, NotFound
from app.input_states import InputState
from app.jobs.recipe_checks import why_not
from app.models import repository as models_repository
from app.models.records import ModelRecord
from workers.compression.specs.evidence import EVIDENCE, Evidence
from workers.compression.specs.recipe import STEP_CLASSES
from workers.compression.specs.step import Step


def catalogue(evidence: Sequence[Evidence] = EVIDENCE) -> list[dict[str, Any]]:
    """All techniques with a row of evidence."""
    return [_entry(step, rows) for step, rows in _offered(evidence)]


def catalogue_for(
    session: Session, project_id: str, model_id: str, evidence: Sequence[Evidence] = EVIDENCE
) -> list[dict[str, Any]]:
    """The same, each with whether it applies to the model and why not."""
    model = models_repository.get(session, project_id, model_id)
    if model is None:
        raise NotFound(f"There is no model {model_id}.")
    if model.status == InputState.INSPECTING:
        raise Conflict(f"Model {model_id} is still being inspected.", reason="model_inspecting")
    return [_entry(step, rows) | _verdict(step, model) for step, rows in _offered(evidence)]


def _offered(evidence: Iterable[Evidence]) -> list[tuple[type[Step], list[Evidence]]]:
    rows = list(evidence)
    shown = [(step, [row for row in rows if row.technique == step.key()]) for step in STEP_CLASSES]
    return [(step, seen) for step, seen in shown if seen]


def _entry(step: type[Step], evidence: list[Evidence]) -> dict[str, Any]:
    technique, method = step.key().split(".")
    return {
        "object": "technique",
        "technique": technique,
        "method": method,
        "default": step.default,
        "summary": step.summary,
        "formats": list(step.formats),
        "families": list(step.families),
        "needs": list(step.needs),
        "conflicts": list(step.conflicts),
        "schema": step.model_json_schema(),
        "evidence": evidence,
    }


def _verdict(step: type[Step], model: ModelRecord) -> dict[str, Any]:
    reason = why_not(step, model) if model.status == InputState.READY else f"Model {model.id} was rejected."
    return {"applies": reason is None, "why_not": reason}
