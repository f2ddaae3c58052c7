"""The report of a finished job in each of its forms."""

from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response

from app.artifacts import repository as artifacts_repository
from app.dependencies import Services
from app.errors import NotFound
from app.jobs import service
from app.jobs.records import JobRecord

JSON = "application/json"
RENDERED = {"text/html": "report.html", "text/markdown": "report.md"}
FORMS = (JSON, *RENDERED)

# The page holds names from users' files. It is made without scripts; these headers see to it that none would run.
SAFE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; sandbox"
    ),
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept",
}


def respond(services: Services, project_id: str, job_id: str, form: str) -> Response:
    """The report as JSON, or one of the pages that were stored with it."""
    with services.database.reading() as session:
        job = service.get_finished(session, project_id, job_id)
        if job.report is None:
            raise NotFound(f"Job {job_id} {job.status} without a report.", reason="no_report")
        report, page = job.report, _stored_page(session, job, form)
    if page is None:
        return JSONResponse(report, headers=SAFE_HEADERS)
    return Response(services.storage.read(page), media_type=form, headers=SAFE_HEADERS)


def _stored_page(session: Session, job: JobRecord, form: str) -> str | None:
    """The hash of the stored page; None for the JSON form, which is in the database."""
    if form == JSON:
        return None
    for artifact in artifacts_repository.of_job(session, job.id):
        if artifact.kind == "report" and artifact.name == RENDERED[form]:
            return artifact.sha256
    raise NotFound(f"Job {job.id} has no report as {form}.", reason="no_report")
