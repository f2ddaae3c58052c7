"""What uploads of models and of datasets have in common: store, queue the inspection, wait a while, answer."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ValidationError
from sqlalchemy.orm import Session

from app.artifacts.repository import reserve_blob
from app.dependencies import Services
from app.errors import InvalidRequest, InvalidSpec, Problem, UnsupportedMediaType
from app.health.metrics import UPLOADED_BYTES
from app.input_states import InputState
from app.jobs import repository as jobs_repository
from app.uploads import Upload
from app.validation_pointers import field_errors
from app.wakeups import next_wakeup
from workers.compression.specs.errors import Code

POLL_SECONDS = 0.5


class Inspected(Protocol):
    """A record that an inspection decides about."""

    id: Any
    status: Any
    error: Any
    inspection_job_id: Any


R = TypeVar("R", bound=Inspected)
F = TypeVar("F", bound=BaseModel)


def is_multipart(request: Request) -> bool:
    """Whether the body is a form with a file; otherwise it has to be JSON.

    Raises:
        UnsupportedMediaType: It is neither.
    """
    content_type = request.headers.get("content-type", "").lower()
    if content_type.startswith("multipart/form-data"):
        return True
    if content_type.partition(";")[0].strip() != "application/json":
        raise UnsupportedMediaType("Send the file as multipart/form-data.")
    return False


def parse_form(form: type[F], fields: Mapping[str, str]) -> F:
    """The text fields of an upload.

    Raises:
        InvalidSpec: A field is unknown or not valid.
    """
    try:
        return form.model_validate(dict(fields))
    except ValidationError as error:
        raise InvalidSpec(
            "The request has fields that are not valid.", errors=field_errors(error.errors(), fields)
        ) from error


def parse_json(schema: type[F], body: bytes) -> F:
    """The JSON body of a route that takes a form as well, so that FastAPI does not parse it.

    Raises:
        InvalidRequest: It is not JSON.
        InvalidSpec: It is not valid.
    """
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        found = error.errors()
        if found[0]["type"] == "json_invalid":
            raise InvalidRequest("The body is not valid JSON.", reason="json_invalid") from error
        raise InvalidSpec("The request has fields that are not valid.", errors=field_errors(found)) from error


def announce(response: Response, location: str, record: Inspected, *, is_new: bool) -> None:
    """Status and ``Location`` of the answer to an upload."""
    if record.status == InputState.INSPECTING:
        response.status_code = 202
    else:
        response.status_code = 201 if is_new else 200
    response.headers["Location"] = location


async def store(services: Services, upload: Upload) -> None:
    """Puts an upload's bytes into the blob store; whoever writes a row that names them holds the blob with it."""
    await services.in_transaction(lambda session: reserve_blob(session, upload.sha256, upload.size_bytes))
    await run_in_threadpool(services.storage.put_file, upload.path, upload.sha256, move=True)
    UPLOADED_BYTES.inc(upload.size_bytes)


async def await_verdict(services: Services, record: R, reread: Callable[[Session], R | None]) -> R | None:
    """Waits until the inspection has decided, at most as long as the settings say; None if the record is gone."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + services.settings.inspection_wait_seconds
    found: R | None = record
    async with services.wakeups.subscribe(str(record.inspection_job_id)) as queue:
        while True:
            found = await services.reading(reread)
            left = deadline - clock()
            if found is None or found.status != InputState.INSPECTING or left <= 0:
                return found
            await next_wakeup(queue, min(left, POLL_SECONDS))


async def settle(
    services: Services,
    record: R,
    find: Callable[[Session, str], R | None],
    forget: Callable[[Session, R], None],
    *,
    is_new: bool,
) -> R:
    """Waits a while for the inspection's verdict; a new record that is rejected by then leaves nothing behind.

    Args:
        services: The process's services.
        record: The uploaded model or dataset.
        find: Reads it again.
        forget: Deletes it and lets go of its blobs.
        is_new: Whether this upload made it.

    Raises:
        Problem: It was rejected.
    """
    found = await await_verdict(services, record, lambda session: find(session, record.id))
    if found is not None and found.status != InputState.REJECTED:
        return found
    if found is None:
        # Another upload of the same bytes got the verdict first and cleared up.
        raise await services.reading(lambda session: _refusal_of_job(session, record.inspection_job_id))
    if is_new:
        await services.in_transaction(lambda session: forget(session, session.merge(found)))
    raise refusal(found.error)


def refusal(error: Mapping[str, Any] | None) -> Problem:
    """The verdict of an inspection as the answer to the upload."""
    known = error or {}
    return Problem(
        str(known.get("detail", "The upload was rejected.")),
        code=Code(known.get("code", Code.INTERNAL)),
        reason=known.get("reason"),
        hint=known.get("hint"),
    )


def _refusal_of_job(session: Session, job_id: str | None) -> Problem:
    job = jobs_repository.find(session, job_id) if job_id else None
    return refusal(job.error if job else None)
