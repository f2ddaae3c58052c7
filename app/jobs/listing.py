"""Pages of jobs and of what belongs to a job."""

from sqlalchemy.orm import Session

from app.artifacts import repository as artifacts_repository
from app.artifacts.schemas import ArtifactRead
from app.artifacts.views import artifact_read
from app.errors import InvalidSpec
from app.jobs import repository, service, views
from app.jobs.schemas import EventRead, JobRead
from app.pagination import Filters, ListPage, Page, list_page, split_page
from app.validation_pointers import FieldError
from workers.compression.specs.metrics import Layer


def jobs(session: Session, project_id: str, filters: Filters, model: str | None, page: Page) -> ListPage[JobRead]:
    """The project's jobs, newest first."""
    rows, has_more = split_page(repository.list_page(session, project_id, filters, model, page), page)
    return list_page(views.jobs_read(session, rows), has_more=has_more)


def events(session: Session, project_id: str, job_id: str, page: Page) -> ListPage[EventRead]:
    """The job's events, oldest first."""
    job = service.get(session, project_id, job_id)
    start = _sequence_of(session, job.id, page.after) if page.after else 0
    rows, has_more = split_page(repository.events_after(session, job.id, start, page.limit + 1), page)
    return list_page([views.event_read(event) for event in rows], has_more=has_more)


def resume_from(session: Session, project_id: str, job_id: str, last_event_id: str | None) -> int:
    """The sequence number after which a stream goes on; an id that is not the job's starts it over."""
    job = service.get(session, project_id, job_id)
    if last_event_id is None:
        return 0
    return repository.sequence_of(session, job.id, last_event_id) or 0


def layers(session: Session, project_id: str, job_id: str, page: Page) -> ListPage[Layer]:
    """The layers of a finished job in graph order; ``after`` is the number of those already seen."""
    job = service.get(session, project_id, job_id)
    if job.layers is None:
        service.get_finished(session, project_id, job_id)
    start = _position(page.after)
    rows, has_more = split_page((job.layers or [])[start:], page)
    return ListPage(
        data=[Layer.model_validate(row) for row in rows],
        has_more=has_more,
        next=str(start + page.limit) if has_more else None,
    )


def artifacts(session: Session, project_id: str, job_id: str, page: Page) -> ListPage[ArtifactRead]:
    """What the job made, newest first."""
    job = service.get(session, project_id, job_id)
    made = reversed(artifacts_repository.of_job(session, job.id))
    older = [artifact for artifact in made if page.after is None or artifact.id < page.after]
    rows, has_more = split_page(older, page)
    return list_page([artifact_read(artifact) for artifact in rows], has_more=has_more)


def _sequence_of(session: Session, job_id: str, event_id: str) -> int:
    sequence = repository.sequence_of(session, job_id, event_id)
    if sequence is None:
        raise _invalid_after(f"Job {job_id} has no event {event_id}.")
    return sequence


def _position(after: str | None) -> int:
    if after is None:
        return 0
    if not after.isdecimal() or len(after) > 9:
        raise _invalid_after("`after` has to be the `next` of the page before.")
    return int(after)


def _invalid_after(detail: str) -> InvalidSpec:
    return InvalidSpec(detail, errors=[FieldError(pointer="/after", detail=detail)])
