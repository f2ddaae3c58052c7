"""The answer of ``POST /v1/jobs/validate``."""

from sqlalchemy.orm import Session

from app.input_states import InputState
from app.jobs import planning, recipe_checks
from app.jobs.schemas import JobCreate, JobSpec, Plan, PlannedStep
from workers.compression.specs.formats import RUNNABLE_FORMATS, ModelFormat


def plan(session: Session, project_id: str, request: JobCreate) -> Plan:
    """What the request would do. Steps that exclude each other are named; everything else is refused as at submit."""
    resolved = planning.resolve(session, project_id, request, check_order=False)
    conflicts = recipe_checks.find_conflicts(resolved.spec.recipe)
    return Plan(
        valid=not conflicts,
        spec=resolved.spec,
        steps=_steps(resolved.spec),
        conflicts=conflicts,
        waiting_for=list(resolved.inputs.waiting_for()),
        warnings=_warnings(resolved),
    )


def _steps(spec: JobSpec) -> list[PlannedStep]:
    return [
        PlannedStep(
            index=index,
            technique=step.technique,
            method=step.method,
            summary=step.summary,
            needs=list(step.required()),
            spec=step.model_dump(mode="json"),
        )
        for index in recipe_checks.working_order(spec.recipe)
        for step in [spec.recipe[index]]
    ]


def _warnings(resolved: planning.Resolved) -> list[str]:
    model = resolved.inputs.model
    if model.status == InputState.READY and ModelFormat(str(model.format)) not in RUNNABLE_FORMATS:
        return [f"A {model.format} model cannot be run: only its stored bytes are compared, not its answers."]
    if not resolved.spec.data.by_role():
        return ["No data was given: quality is judged by fidelity on synthetic inputs."]
    return []
