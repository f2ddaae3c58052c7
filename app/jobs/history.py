"""What finished jobs took, as far as it helps to estimate the next one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.jobs.records import JobRecord
from app.jobs.repository import COMPRESS
from app.jobs.states import JobState
from workers.compression.specs.recipe import step_tag

RECENT_JOBS = 200


@dataclass(frozen=True)
class FinishedJob:
    """The figures of one job that succeeded."""

    seconds: float
    original_bytes: int
    artifact_bytes: int


def similar_jobs(session: Session, project_id: str, steps: Sequence[str], model_format: str) -> list[FinishedJob]:
    """The project's recent successes with the same steps on the same format.

    Args:
        steps: ``technique.method`` of each step, in order.
    """
    recent = (
        select(JobRecord.spec, JobRecord.metrics, JobRecord.started_at, JobRecord.finished_at)
        .where(JobRecord.project_id == project_id, JobRecord.kind == COMPRESS, JobRecord.status == JobState.SUCCEEDED)
        .order_by(JobRecord.id.desc())
        .limit(RECENT_JOBS)
    )
    return [
        _figures(metrics, (finished - started).total_seconds())
        for spec, metrics, started, finished in session.execute(recent)
        if metrics and started and finished and _same_work(spec, steps, model_format)
    ]


def _same_work(spec: dict[str, Any], steps: Sequence[str], model_format: str) -> bool:
    return model_format in spec["outputs"] and [step_tag(step) for step in spec["recipe"]] == list(steps)


def _figures(metrics: dict[str, Any], seconds: float) -> FinishedJob:
    sizes = [max(metrics[side]["size_bytes"], 1) for side in ("original", "compressed")]
    return FinishedJob(seconds=seconds, original_bytes=sizes[0], artifact_bytes=sizes[1])
