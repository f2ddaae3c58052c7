"""The life of a dataset: uploaded, inspected, used, deleted."""

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from app import intake
from app.artifacts.repository import hold_blob, release_blob
from app.datasets import repository
from app.datasets.records import DatasetRecord
from app.datasets.schemas import DatasetForm, DatasetPatch
from app.db import RowLock
from app.dependencies import Services
from app.errors import InUse, NotFound, failure_body
from app.input_states import InputState
from app.jobs import repository as jobs_repository
from app.jobs.records import JobRecord
from app.jobs.service import submit_inspection
from app.uploads import Upload
from workers.compression.specs.containers.sniffing import sniff_dataset
from workers.compression.specs.messages import DatasetInspection, Failure, ModelInspection

NAME_LENGTH = 200


async def add_upload(services: Services, project_id: str, upload: Upload) -> tuple[DatasetRecord, bool]:
    """Makes a dataset of an upload, or finds the one with the same bytes and fields.

    Returns:
        The dataset, and whether it is new.

    Raises:
        EngineError: The cheap checks refuse the content.
        InvalidSpec: A form field is not valid.
    """
    form = intake.parse_form(DatasetForm, upload.fields)
    dataset_format = await run_in_threadpool(sniff_dataset, upload.path, upload.filename)
    await intake.store(services, upload)
    dataset = DatasetRecord(
        project_id=project_id,
        name=(form.name or upload.filename or "dataset")[:NAME_LENGTH],
        filename=upload.filename,
        sha256=upload.sha256,
        size_bytes=upload.size_bytes,
        format=dataset_format.value,
        fields=form.dataset_fields().model_dump(mode="json", exclude_none=True),
        labels=form.labels,
    )
    return await services.in_transaction(lambda session: _add(session, dataset))


def _add(session: Session, dataset: DatasetRecord) -> tuple[DatasetRecord, bool]:
    same = repository.find_same(session, dataset.project_id, dataset.sha256, dataset.fields)
    if same is not None:
        return same, False
    hold_blob(session, dataset.sha256, dataset.size_bytes)
    dataset.status = InputState.INSPECTING
    session.add(dataset)
    session.flush()
    dataset.inspection_job_id = submit_inspection(session, "inspect_dataset", dataset.project_id, dataset.id).id
    session.flush()
    return dataset, True


async def settle(services: Services, dataset: DatasetRecord, *, is_new: bool) -> DatasetRecord:
    """Waits a while for the inspection's verdict; raises the problem if the dataset is rejected."""
    return await intake.settle(services, dataset, repository.find, _forget, is_new=is_new)


def finish_inspection(
    session: Session,
    job: JobRecord,
    inspection: ModelInspection | DatasetInspection | None,
    failure: Failure | None,
    clean: tuple[str, int] | None,
) -> None:
    """Writes the verdict; part of the transaction that ends the inspection.

    Args:
        session: The runner's fenced transaction.
        job: The inspection.
        inspection: What was found, if the dataset is good.
        failure: Why it is not.
        clean: Always None, for datasets are read as they came.
    """
    dataset = repository.find(session, job.dataset_id) if job.dataset_id else None
    if dataset is None:
        return
    if isinstance(inspection, DatasetInspection):
        dataset.status = InputState.READY
        dataset.format = inspection.format.value
        dataset.inspection = inspection.model_dump(mode="json")
    elif failure is not None:
        dataset.status = InputState.REJECTED
        dataset.error = failure_body(failure)
    session.flush()


def get(session: Session, project_id: str, dataset_id: str, *, lock: RowLock | None = None) -> DatasetRecord:
    """The project's dataset.

    Raises:
        NotFound: There is none with that id.
    """
    dataset = repository.get(session, project_id, dataset_id, lock=lock)
    if dataset is None:
        raise NotFound(f"There is no dataset {dataset_id[:64]}.")
    return dataset


def change(session: Session, project_id: str, dataset_id: str, patch: DatasetPatch) -> DatasetRecord:
    """Renames or relabels."""
    dataset = get(session, project_id, dataset_id)
    dataset.name = patch.name if patch.name is not None else dataset.name
    dataset.labels = patch.labels if patch.labels is not None else dataset.labels
    session.flush()
    return dataset


def delete(session: Session, project_id: str, dataset_id: str) -> None:
    """Deletes a dataset; its bytes are collected when nothing else names them.

    Raises:
        InUse: A job that has not ended uses it, or its inspection has not.
    """
    dataset = get(session, project_id, dataset_id, lock="delete")
    if dataset.status == InputState.INSPECTING or jobs_repository.input_in_use(session, dataset.id):
        raise InUse(f"A job that has not ended uses {dataset.id}.")
    _forget(session, dataset)


def _forget(session: Session, dataset: DatasetRecord) -> None:
    release_blob(session, dataset.sha256)
    session.delete(dataset)
    session.flush()
