"""What can be done with jobs. No function here commits: the request or the runner owns the transaction."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.artifacts import repository as artifacts_repository
from app.config import Settings
from app.datasets import repository as datasets_repository
from app.db import DatabaseNow
from app.errors import JobFinished, JobNotFinished, NotFound, RateLimited, failure_body
from app.jobs import analyses, estimate, planning, repository
from app.jobs.records import JobRecord
from app.jobs.schemas import AnalysisCreate, AnalysisSpec, JobCreate, JobSpec, Role, Split
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
    _check_queue(session, settings, project_id)
    resolved = planning.resolve(session, project_id, request)
    estimate.check_fits(resolved, settings)
    return _create(session, project_id, repository.COMPRESS, resolved.spec, resolved.inputs)


def submit_analysis(
    session: Session, settings: Settings, project_id: str, model_id: str, request: AnalysisCreate
) -> JobRecord:
    """Accepts the analysis of a model, or refuses it likewise."""
    _check_queue(session, settings, project_id)
    resolved = analyses.resolve(session, project_id, model_id, request)
    estimate.check_fits(resolved.ahead, settings)
    return _create(session, project_id, repository.ANALYZE, resolved.spec, resolved.ahead.inputs)


def _check_queue(session: Session, settings: Settings, project_id: str) -> None:
    if repository.count_queued(session, project_id) >= settings.max_queued_jobs:
        raise RateLimited(
            f"{settings.max_queued_jobs} jobs of this project wait already.",
            limit=settings.max_queued_jobs,
            reason="queue_full",
        )


def _create(
    session: Session, project_id: str, kind: str, spec: JobSpec | AnalysisSpec, inputs: planning.Inputs
) -> JobRecord:
    execution = spec.execution
    job = JobRecord(
        project_id=project_id,
        kind=kind,
        capability=COMPRESSION_CAPABILITY,
        priority=PRIORITIES[execution.priority],
        admitted=not inputs.waiting_for(),
        model_id=spec.model,
        spec=spec.model_dump(mode="json"),
        labels=dict(spec.labels),
        max_attempts=execution.max_attempts,
        timeout_seconds=execution.timeout_seconds,
        pending_deadline=DatabaseNow() + execution.max_pending_seconds,
    )
    repository.create(session, job, inputs.ids())
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
            spec, inputs = _resolve_again(session, job)
        except EngineError as error:
            repository.end_queued(
                session, job.id, JobState.FAILED, termination_reason="error", error=failure_body(_failure(error))
            )
            continue
        job.spec = spec.model_dump(mode="json")
        if not inputs.waiting_for():
            repository.admit(session, job)


def _resolve_again(session: Session, job: JobRecord) -> tuple[JobSpec | AnalysisSpec, planning.Inputs]:
    if job.kind == repository.ANALYZE:
        asked = analysis_of(job)
        analysis = analyses.resolve(session, job.project_id, asked.model, asked.request())
        return analysis.spec, analysis.ahead.inputs
    resolved = planning.resolve(session, job.project_id, spec_of(job).request())
    return resolved.spec, resolved.inputs


def _failure(error: EngineError) -> Failure:
    return Failure(
        code=error.code, detail=error.detail, reason=error.reason, hint=error.hint, step=error.step or error.pointer
    )


def spec_of(job: JobRecord) -> JobSpec:
    """The resolved spec of a compression."""
    return JobSpec.model_validate(job.spec)


def analysis_of(job: JobRecord) -> AnalysisSpec:
    """The resolved spec of an analysis."""
    return AnalysisSpec.model_validate(job.spec)


def data_for(session: Session, job: JobRecord) -> dict[Role, DatasetUse]:
    """The data of a job by role, for the runner; the rows of two roles never overlap."""
    split = Split.model_validate(job.spec["split"])
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
    labels = {"labels": dict(job.labels)}
    if job.kind == repository.ANALYZE:
        analysis = analysis_of(job)
        again = analysis.request().model_copy(update=labels)
        return submit_analysis(session, settings, project_id, analysis.model, again)
    return submit(session, settings, project_id, spec_of(job).request().model_copy(update=labels))


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
