"""The inspection of an upload: one child, then the verdict on the model or dataset."""

from pathlib import Path

from sqlalchemy.orm import Session

from app.artifacts.repository import store_file
from app.datasets import service as datasets_service
from app.datasets.records import DatasetRecord
from app.jobs import service as jobs_service
from app.jobs.records import JobRecord
from app.jobs.states import JobState
from app.models import service as models_service
from app.models.records import ModelRecord
from workers import outputs
from workers.compression.specs.job import DatasetFields
from workers.compression.specs.messages import (
    DatasetInspection,
    Failure,
    InspectDataset,
    InspectModel,
    ModelInspection,
)
from workers.conclusion import Conclusion, failed
from workers.stage import Stages

STAGE = "inspect"
_WHOLE = (0.0, 1.0)


def inspect_model(stages: Stages, job: JobRecord) -> Conclusion:
    """Checks a model, stores its clean form."""
    workplace = stages.workplace
    with workplace.database.reading() as session:
        model = session.get_one(ModelRecord, job.model_id)
    with workplace.storage.local(model.sha256) as path:
        request = InspectModel(path=str(path), filename=model.filename)
        found = stages.run(STAGE, request, ModelInspection, window=_WHOLE, readable=(path,))
    clean = _store_clean(stages, found.clean)

    def write(session: Session, ended: JobRecord) -> None:
        models_service.finish_inspection(session, ended, found, None, clean)
        jobs_service.admit_waiting(session, model.id)

    return Conclusion(JobState.SUCCEEDED, _completed(found), write)


def inspect_dataset(stages: Stages, job: JobRecord) -> Conclusion:
    """Checks a dataset; it is read as it came."""
    workplace = stages.workplace
    with workplace.database.reading() as session:
        dataset = session.get_one(DatasetRecord, job.dataset_id)
    with workplace.storage.local(dataset.sha256) as path:
        fields = DatasetFields.model_validate(dataset.fields)
        request = InspectDataset(path=str(path), filename=dataset.filename, fields=fields)
        found = stages.run(STAGE, request, DatasetInspection, window=_WHOLE, readable=(path,))

    def write(session: Session, ended: JobRecord) -> None:
        datasets_service.finish_inspection(session, ended, found, None, None)
        jobs_service.admit_waiting(session, dataset.id)

    return Conclusion(JobState.SUCCEEDED, _completed(found), write)


def rejected(failure: Failure) -> Conclusion:
    """The upload is not accepted, or its inspection could not be carried out."""
    return failed(failure, lambda session, job: reject_input(session, job, failure))


def reject_input(session: Session, job: JobRecord, failure: Failure) -> None:
    """Marks the inspected input as rejected and fails the jobs that waited for it."""
    if job.kind == "inspect_model":
        models_service.finish_inspection(session, job, None, failure, None)
    else:
        datasets_service.finish_inspection(session, job, None, failure, None)
    jobs_service.admit_waiting(session, str(job.model_id or job.dataset_id))


def _completed(found: ModelInspection | DatasetInspection) -> dict[str, object]:
    return {"termination_reason": "completed", "warnings": list(found.warnings)}


def _store_clean(stages: Stages, relative: str | None) -> tuple[str, int] | None:
    if relative is None:
        return None
    path: Path = outputs.made_file(stages.folder / STAGE, relative, stages.workplace.settings.child_file_bytes)
    sha256 = outputs.hash_of(path)
    stages.check()
    return sha256, store_file(stages.workplace.database, stages.workplace.storage, path, sha256, move=True)
