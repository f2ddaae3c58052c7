"""From records to what clients see."""

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.artifacts import repository as artifacts_repository
from app.artifacts.schemas import ArtifactRead
from app.artifacts.views import artifact_read
from app.jobs import reading
from app.jobs.records import EventRecord, JobRecord
from app.jobs.schemas import EventRead, JobRead
from app.jobs.states import TERMINAL


def job_read(session: Session, job: JobRecord) -> JobRead:
    """One job as clients see it."""
    return jobs_read(session, [job])[0]


def jobs_read(session: Session, jobs: Sequence[JobRecord]) -> list[JobRead]:
    """Jobs as clients see them; the number of queries does not grow with the number of jobs."""
    positions = reading.queue_positions(session, jobs)
    artifacts: defaultdict[str, list[ArtifactRead]] = defaultdict(list)
    finished = [job.id for job in jobs if job.status in TERMINAL]
    if finished:
        for artifact in artifacts_repository.of_jobs(session, finished):
            artifacts[artifact.job_id].append(artifact_read(artifact))
    return [_job_read(job, positions.get(job.id), artifacts[job.id]) for job in jobs]


def _job_read(job: JobRecord, position: int | None, artifacts: list[ArtifactRead]) -> JobRead:
    return JobRead.model_validate(
        {
            "id": job.id,
            "status": job.status,
            "done": job.status in TERMINAL,
            "spec": job.spec,
            "progress": job.progress,
            "attempt": job.attempt,
            "queue": {"name": job.capability, "position": position},
            "created_at": job.created_at,
            "queued_at": job.queued_at,
            "started_at": job.started_at,
            "finished_at": job.finished_at,
            "outcome": job.outcome,
            "termination_reason": job.termination_reason,
            "metrics": job.metrics,
            "warnings": job.warnings,
            "error": job.error,
            "artifacts": artifacts,
            "environment": job.environment,
            "labels": job.labels,
        }
    )


def event_read(event: EventRecord) -> EventRead:
    """One event as clients see it."""
    return EventRead(
        id=event.id,
        type=event.type,
        job=event.job_id,
        sequence=event.sequence,
        created_at=event.created_at,
        data=event.data,
    )
