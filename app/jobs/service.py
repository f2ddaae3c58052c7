"""What can be done with jobs. No function here commits: the request or the runner owns the transaction."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.artifacts import repository as artifacts_repository
from app.config import Settings
from app.datasets import repository as datasets_repository
from app.db import DatabaseNow
from app.errors import JobFinished, JobNotFinished, NotFound, RateLimited, failure_body
from app.jobs import estimate, planning, repository
from app.jobs.records import JobRecord
from app.jobs.schemas import JobCreate, JobSpec, Role
from app.jobs.states import TERMINAL, JobState
from workers.compression.specs.errors import EngineError
from workers.compression.specs.formats import DatasetFormat
from workers.compression.specs.job import DatasetFields
from workers.compression.specs.messages import Failure

COMPRESSION_CAPABILITY = "cpu"
INSPECTION_CAPABILITY = "inspect"
INSPECTION_SECONDS = 300.0
PRIORITIES = {"low": -1, "normal": 0, "high": 1}


@dataclass(frozen=True)
class DatasetUse:
    """The rows of a stored dataset that one role of a job sees."""

    sha256: str
    format: DatasetFormat
    fields: DatasetFields
    part: tuple[float, float]
    split_seed: int


def submit(session: Session, settings: Settings, project_id: str, request: JobCreate) -> JobRecord:
    """Accepts a job, or refuses it with everything that can be known now."""
    if repository.count_queued(session, project_id) >= settings.max_queued_jobs:
        raise RateLimited(
            f"{settings.max_queued_jobs} jobs of this project wait already.",
            limit=settings.max_queued_jobs,
            reason="queue_full",
        )
    resolved = planning.resolve(session, project_id, request)
    estimate.check_fits(resolved, settings)
    return _create(session, project_id, resolved)


def _create(session: Session, project_id: str, resolved: planning.Resolved) -> JobRecord:
    execution = resolved.spec.execution
    job = JobRecord(
        project_id=project_id,
        kind=repository.COMPRESS,
        capability=COMPRESSION_CAPABILITY,
        priority=PRIORITIES[execution.priority],
        admitted=not resolved.inputs.waiting_for(),
        model_id=resolved.spec.model,
        spec=resolved.spec.model_dump(mode="json"),
        labels=dict(resolved.spec.labels),
        max_attempts=execution.max_attempts,
        timeout_seconds=execution.timeout_seconds,
        pending_deadline=DatabaseNow() + execution.max_pending_seconds,
    )
    repository.create(session, job, resolved.inputs.ids())
    return job


def submit_inspection(session: Session, kind: str, project_id: str, input_id: str) -> JobRecord:
    """Queues the inspection of an upload.

    Args:
        kind: ``inspect_model`` or ``inspect_dataset``.
        input_id: The model or dataset.
    """
    job = JobRecord(
        project_id=project_id,
        kind=kind,
        capability=INSPECTION_CAPABILITY,
        model_id=input_id if kind == "inspect_model" else None,
        dataset_id=input_id if kind == "inspect_dataset" else None,
        spec={},
        timeout_seconds=INSPECTION_SECONDS,
    )
    repository.create(session, job)
    return job


def admit_waiting(session: Session, input_id: str) -> None:
    """Checks again the jobs that waited for the inspection of ``input_id``: they may run now, or they fail."""
    for job in repository.waiting_for(session, input_id):
        try:
            resolved = planning.resolve(session, job.project_id, spec_of(job).request())
        except EngineError as error:
            repository.end_queued(
                session, job.id, JobState.FAILED, termination_reason="error", error=failure_body(_failure(error))
            )
            continue
        job.spec = resolved.spec.model_dump(mode="json")
        if not resolved.inputs.waiting_for():
            repository.admit(session, job)


def _failure(error: EngineError) -> Failure:
    return Failure(
        code=error.code, detail=error.detail, reason=error.reason, hint=error.hint, step=error.step or error.pointer
    )


def spec_of(job: JobRecord) -> JobSpec:
    """The resolved spec of a compression."""
    return JobSpec.model_validate(job.spec)


def data_for(session: Session, job: JobRecord) -> dict[Role, DatasetUse]:
    """The data of a job by role, for the runner; the rows of two roles never overlap."""
    split = spec_of(job).split
    uses: dict[Role, DatasetUse] = {}
    for role, part in split.roles.items():
        dataset = datasets_repository.get(session, job.project_id, part.dataset)
        if dataset is None:
            raise NotFound(f"There is no dataset {part.dataset}.")
        uses[role] = DatasetUse(
            sha256=dataset.sha256,
            format=DatasetFormat(str(dataset.format)),
            fields=DatasetFields.model_validate(dataset.fields),
            part=part.part,
            split_seed=split.seed,
        )
    return uses


def get(session: Session, project_id: str, job_id: str) -> JobRecord:
    """The job, or ``NotFound``."""
    job = repository.get(session, project_id, job_id)
    if job is None:
        raise NotFound(f"There is no job {job_id}.")
    return job


def get_finished(session: Session, project_id: str, job_id: str) -> JobRecord:
    """The job in its terminal state, or ``JobNotFinished``."""
    job = get(session, project_id, job_id)
    if job.status not in TERMINAL:
        raise JobNotFinished(f"Job {job_id} is {job.status}; wait for it to end.")
    return job


def cancel(session: Session, project_id: str, job_id: str) -> JobRecord:
    """Asks a job to stop; asking twice changes nothing, asking a finished one is refused."""
    job = get(session, project_id, job_id)
    if job.status in TERMINAL:
        raise JobFinished(f"Job {job_id} has {job.status} already.")
    return repository.request_cancel(session, job)


def retry(session: Session, settings: Settings, project_id: str, job_id: str) -> JobRecord:
    """A new job with the same spec, checked anew."""
    job = get_finished(session, project_id, job_id)
    request = spec_of(job).request().model_copy(update={"labels": dict(job.labels)})
    return submit(session, settings, project_id, request)


def relabel(session: Session, project_id: str, job_id: str, labels: dict[str, str]) -> JobRecord:
    """Puts ``labels`` in place of the old ones."""
    job = get(session, project_id, job_id)
    job.labels = labels
    return job


def delete(session: Session, project_id: str, job_id: str) -> None:
    """Deletes a finished job and its artifacts; their blobs are collected when nothing else names them."""
    job = get_finished(session, project_id, job_id)
    artifacts_repository.delete_of_job(session, job.id)
    repository.delete_finished(session, job)
