"""HTTP routes of workers and targets."""

from fastapi import APIRouter

from app.dependencies import Reader, ReadSession, ServicesDep
from app.pagination import ListPage, Paging
from app.workers_registry import service
from app.workers_registry.schemas import TargetRead, WorkerRead

router = APIRouter(prefix="/v1", tags=["discovery"])


@router.get("/workers", response_model=ListPage[WorkerRead])
def list_workers(session: ReadSession, principal: Reader, services: ServicesDep, page: Paging) -> ListPage[WorkerRead]:
    """Lists workers that are or were there, newest first."""
    return service.workers(session, principal.project_id, services.settings, page)


@router.get("/targets", response_model=ListPage[TargetRead])
def list_targets(session: ReadSession, _: Reader, services: ServicesDep) -> ListPage[TargetRead]:
    """Lists what artifacts can be made for, and whether a worker is there to measure it."""
    return ListPage(data=service.targets(session, services.settings), has_more=False)
