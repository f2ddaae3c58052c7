"""HTTP routes of jobs."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response, status
from fastapi.sse import EventSourceResponse

from app.artifacts.schemas import ArtifactRead
from app.dependencies import Reader, ReadSession, ServicesDep, Writer, WriteSession
from app.jobs import estimate as estimates
from app.jobs import listing, planning, reports, service, streaming, validation, views
from app.jobs.schemas import Estimate, EventRead, JobCreate, JobRead, LabelsPatch, Plan
from app.negotiation import negotiate, wait_seconds
from app.pagination import Filtering, ListPage, Paging
from app.problems import problem_responses
from workers.compression.specs.errors import Code
from workers.compression.specs.metrics import Layer
from workers.compression.specs.report import AnalysisReport, Report

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

REFUSALS = problem_responses(
    Code.INVALID_SPEC,
    Code.UNSUPPORTED_TECHNIQUE,
    Code.INCOMPATIBLE_STEPS,
    Code.DATASET_MISMATCH,
    Code.OUT_OF_MEMORY,
    Code.OUT_OF_DISK,
)
NOT_FOUND = problem_responses(Code.NOT_FOUND)
UNFINISHED = problem_responses(Code.NOT_FOUND, Code.JOB_NOT_FINISHED)
NOT_ACCEPTABLE = problem_responses(Code.NOT_ACCEPTABLE)
LINK_TO_JOB = {"headers": {"Location": {"description": "The job.", "schema": {"type": "string"}}}}

Accept = Annotated[str | None, Header(description="Media type of the answer.")]


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobRead,
    responses={202: LINK_TO_JOB, **REFUSALS, **problem_responses(Code.RATE_LIMITED)},
)
def submit(
    request: JobCreate, response: Response, session: WriteSession, principal: Writer, services: ServicesDep
) -> JobRead:
    """Submits a job: a model, data and a recipe."""
    job = service.submit(session, services.settings, principal.project_id, request)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return views.job_read(session, job)


@router.post("/validate", response_model=Plan, responses=REFUSALS)
def validate(request: JobCreate, session: ReadSession, principal: Reader) -> Plan:
    """Shows what a request would do, and names steps that exclude each other; nothing is created."""
    return validation.plan(session, principal.project_id, request)


@router.post("/estimate", response_model=Estimate, responses=REFUSALS)
def estimate(request: JobCreate, session: ReadSession, principal: Reader, services: ServicesDep) -> Estimate:
    """Bands of time, memory and artifact size; a job that cannot fit is refused."""
    resolved = planning.resolve(session, principal.project_id, request)
    return estimates.estimate(session, services.settings, principal.project_id, resolved)


@router.get("", response_model=ListPage[JobRead], responses=problem_responses(Code.INVALID_SPEC))
def list_jobs(
    session: ReadSession,
    principal: Reader,
    page: Paging,
    filters: Filtering,
    model: Annotated[str | None, Query(max_length=40, description="Only jobs on this model.")] = None,
) -> ListPage[JobRead]:
    """Lists jobs, newest first."""
    return listing.jobs(session, principal.project_id, filters, model, page)


@router.get("/{job_id}", response_model=JobRead, responses=NOT_FOUND)
async def show(
    job_id: str,
    response: Response,
    services: ServicesDep,
    principal: Reader,
    prefer: Annotated[str | None, Header(description="`wait=N`: answer late, or when the job is done.")] = None,
) -> JobRead:
    """Shows a job; with `Prefer: wait=N` (at most 60) the answer comes when it is done or after N seconds."""
    seconds = wait_seconds(prefer)
    if seconds is not None:
        response.headers["Preference-Applied"] = f"wait={seconds}"
    return await streaming.wait_for_end(services, principal.project_id, job_id, seconds or 0)


@router.post(
    "/{job_id}/cancel",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobRead,
    responses=problem_responses(Code.NOT_FOUND, Code.JOB_FINISHED),
)
def cancel(job_id: str, session: WriteSession, principal: Writer) -> JobRead:
    """Asks a job to stop; asking again changes nothing."""
    return views.job_read(session, service.cancel(session, principal.project_id, job_id))


@router.post(
    "/{job_id}/retry",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobRead,
    responses={202: LINK_TO_JOB, **REFUSALS, **UNFINISHED, **problem_responses(Code.RATE_LIMITED)},
)
def retry(job_id: str, response: Response, session: WriteSession, principal: Writer, services: ServicesDep) -> JobRead:
    """Submits a finished job's spec as a new job."""
    job = service.retry(session, services.settings, principal.project_id, job_id)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return views.job_read(session, job)


@router.patch("/{job_id}", response_model=JobRead, responses=NOT_FOUND)
def relabel(job_id: str, patch: LabelsPatch, session: WriteSession, principal: Writer) -> JobRead:
    """Replaces a job's labels."""
    return views.job_read(session, service.relabel(session, principal.project_id, job_id, patch.labels))


@router.delete("/{job_id}", status_code=status.HTTP_204_NO_CONTENT, responses=UNFINISHED)
def delete(job_id: str, session: WriteSession, principal: Writer) -> None:
    """Deletes a finished job and its artifacts."""
    service.delete(session, principal.project_id, job_id)


@router.get(
    "/{job_id}/events",
    response_model=ListPage[EventRead],
    responses={
        200: {"content": {EventSourceResponse.media_type: {"schema": {"type": "string"}}}},
        **NOT_FOUND,
        **NOT_ACCEPTABLE,
    },
)
async def events(
    job_id: str,
    services: ServicesDep,
    principal: Reader,
    page: Paging,
    accept: Accept = None,
    last_event_id: Annotated[str | None, Header(max_length=64, description="Resume a stream after this.")] = None,
) -> Response | ListPage[EventRead]:
    """Lists a job's events, oldest first; as `text/event-stream` they come as they happen until the job is done."""
    if negotiate(accept, ["application/json", EventSourceResponse.media_type]) == "application/json":
        return await services.reading(lambda session: listing.events(session, principal.project_id, job_id, page))
    start = await services.reading(
        lambda session: listing.resume_from(session, principal.project_id, job_id, last_event_id or page.after)
    )
    return streaming.EventStream(streaming.story(services, job_id, start))


@router.get(
    "/{job_id}/logs",
    response_model=ListPage[str],
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **NOT_FOUND, **NOT_ACCEPTABLE},
)
def logs(job_id: str, session: ReadSession, principal: Reader, accept: Accept = None) -> Response | ListPage[str]:
    """The engine's log lines as plain text or, if asked for, as a JSON list."""
    form = negotiate(accept, ["text/plain", "application/json"])
    log = service.get(session, principal.project_id, job_id).log
    if form == "application/json":
        return ListPage(data=log.splitlines(), has_more=False)
    return Response(log, media_type=form, headers={"X-Content-Type-Options": "nosniff", "Vary": "Accept"})


@router.get(
    "/{job_id}/report",
    response_model=Report | AnalysisReport,
    responses={200: {"content": {form: {"schema": {"type": "string"}} for form in reports.RENDERED}}}
    | UNFINISHED
    | NOT_ACCEPTABLE,
)
def report(job_id: str, services: ServicesDep, principal: Reader, accept: Accept = None) -> Response:
    """The full report: JSON, or a page as `text/html` or `text/markdown`."""
    return reports.respond(services, principal.project_id, job_id, negotiate(accept, reports.FORMS))


@router.get("/{job_id}/layers", response_model=ListPage[Layer], responses=UNFINISHED)
def layers(job_id: str, session: ReadSession, principal: Reader, page: Paging) -> ListPage[Layer]:
    """Bytes, bits, sparsity and error of each layer, in graph order."""
    return listing.layers(session, principal.project_id, job_id, page)


@router.get("/{job_id}/artifacts", response_model=ListPage[ArtifactRead], responses=NOT_FOUND)
def artifacts(job_id: str, session: ReadSession, principal: Reader, page: Paging) -> ListPage[ArtifactRead]:
    """What the job made, newest first."""
    return listing.artifacts(session, principal.project_id, job_id, page)
