"""The life of a model: uploaded or promoted, inspected, used, deleted."""

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from app import intake
from app.artifacts import service as artifacts_service
from app.artifacts.repository import hold_blob, release_blob
from app.db import RowLock
from app.dependencies import Services
from app.errors import InUse, InvalidSpec, NotFound, failure_body
from app.input_states import InputState
from app.jobs import repository as jobs_repository
from app.jobs.records import JobRecord
from app.jobs.service import submit_inspection
from app.models import repository
from app.models.records import ModelRecord
from app.models.schemas import ModelForm, ModelPatch, ModelPromote
from app.sensitivities import repository as sensitivities
from app.uploads import Upload
from app.validation_pointers import FieldError
from workers.compression.specs.containers.sniffing import sniff_model
from workers.compression.specs.messages import DatasetInspection, Failure, ModelInspection

NAME_LENGTH = 200


async def add_upload(services: Services, project_id: str, upload: Upload) -> tuple[ModelRecord, bool]:
    """Makes a model of an upload, or finds the one with the same bytes.

    Returns:
        The model, and whether it is new.

    Raises:
        EngineError: The cheap checks refuse the content.
        InvalidSpec: A form field is not valid.
    """
    form = intake.parse_form(ModelForm, upload.fields)
    model_format = await run_in_threadpool(sniff_model, upload.path)
    await intake.store(services, upload)
    model = ModelRecord(
        project_id=project_id,
        name=(form.name or upload.filename or "model")[:NAME_LENGTH],
        filename=upload.filename,
        license=form.license,
        sha256=upload.sha256,
        size_bytes=upload.size_bytes,
        format=model_format.value,
        labels=form.labels,
    )
    return await services.in_transaction(lambda session: _add(session, model))


def promote(session: Session, project_id: str, request: ModelPromote) -> tuple[ModelRecord, bool]:
    """Makes a model of an artifact, or finds the one with the same bytes.

    Raises:
        NotFound: There is no such artifact.
        InvalidSpec: The artifact is no model.
    """
    artifact = artifacts_service.get(session, project_id, request.artifact)
    if artifact.kind != "model":
        errors = [FieldError(pointer="/artifact", detail=f"Its kind is {artifact.kind}, not model.")]
        raise InvalidSpec("Only an artifact of kind model can become a model.", errors=errors)
    model = ModelRecord(
        project_id=project_id,
        name=request.name or artifact.name[:NAME_LENGTH],
        filename=artifact.name,
        sha256=artifact.sha256,
        size_bytes=artifact.size_bytes,
        format=artifact.format,
        artifact_id=artifact.id,
        labels=request.labels,
    )
    return _add(session, model)


def _add(session: Session, model: ModelRecord) -> tuple[ModelRecord, bool]:
    same = repository.find_same(session, model.project_id, model.sha256)
    if same is not None:
        return same, False
    hold_blob(session, model.sha256, model.size_bytes)
    model.status = InputState.INSPECTING
    session.add(model)
    session.flush()
    model.inspection_job_id = submit_inspection(session, "inspect_model", model.project_id, model.id).id
    session.flush()
    return model, True


async def settle(services: Services, model: ModelRecord, *, is_new: bool) -> ModelRecord:
    """Waits a while for the inspection's verdict; raises the problem if the model is rejected."""
    return await intake.settle(services, model, repository.find, _forget, is_new=is_new)


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
        inspection: What was found, if the model is good.
        failure: Why it is not.
        clean: Hash and size of the stored clean form, where it differs from the upload.
    """
    model = repository.find(session, job.model_id) if job.model_id else None
    if model is None:
        return
    if isinstance(inspection, ModelInspection):
        _accept(session, model, inspection, clean)
    elif failure is not None:
        model.status = InputState.REJECTED
        model.error = failure_body(failure)
    session.flush()


def _accept(session: Session, model: ModelRecord, inspection: ModelInspection, clean: tuple[str, int] | None) -> None:
    if clean is not None and clean[0] != model.sha256:
        hold_blob(session, *clean)
        model.clean_sha256 = clean[0]
    else:
        model.clean_sha256 = model.sha256
    model.status = InputState.READY
    model.format = inspection.format.value
    model.family = inspection.family.value
    model.inspection = inspection.model_dump(mode="json")


def get(session: Session, project_id: str, model_id: str, *, lock: RowLock | None = None) -> ModelRecord:
    """The project's model.

    Raises:
        NotFound: There is none with that id.
    """
    model = repository.get(session, project_id, model_id, lock=lock)
    if model is None:
        raise NotFound(f"There is no model {model_id[:64]}.")
    return model


def change(session: Session, project_id: str, model_id: str, patch: ModelPatch) -> ModelRecord:
    """Renames or relabels."""
    model = get(session, project_id, model_id)
    model.name = patch.name if patch.name is not None else model.name
    model.labels = patch.labels if patch.labels is not None else model.labels
    session.flush()
    return model


def delete(session: Session, project_id: str, model_id: str) -> None:
    """Deletes a model; its bytes are collected when nothing else names them.

    Raises:
        InUse: A job that has not ended uses it, or its inspection has not.
    """
    model = get(session, project_id, model_id, lock="delete")
    if model.status == InputState.INSPECTING or jobs_repository.input_in_use(session, model.id):
        raise InUse(f"A job that has not ended uses {model.id}.")
    _forget(session, model)


def _forget(session: Session, model: ModelRecord) -> None:
    clean = model.clean_sha256 or model.sha256
    for sha256 in {model.sha256, clean}:
        release_blob(session, sha256)
    sensitivities.forget(session, model.project_id, clean)
    session.delete(model)
    session.flush()
