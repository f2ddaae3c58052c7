"""Liveness, readiness, version and metrics."""

from importlib.metadata import version

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.dependencies import ReadSession, ServicesDep
from app.health import repository, service
from app.health.metrics import JOBS, QUEUED, WORKERS, replace_gauge
from app.health.schemas import Health, Readiness, Version

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> Health:
    """Whether the process lives; asks nothing of any other part."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "A part does not answer."}})
def readyz(services: ServicesDep, response: Response) -> Readiness:
    """Whether requests can be served: database, broker and storage each by name."""
    parts = service.check_parts(services.database, services.broker, services.storage)
    ready = all(outcome == "ok" for outcome in parts.values())
    response.status_code = 200 if ready else 503
    return Readiness(status="ready" if ready else "not_ready", **parts)


@router.get("/v1/version")
async def get_version() -> Version:
    """The version of the service and of its contract."""
    return Version(version=version("pressroom"))


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(session: ReadSession) -> Response:
    """Prometheus metrics."""
    replace_gauge(JOBS, repository.jobs_by_status(session))
    replace_gauge(QUEUED, repository.queued_by_capability(session))
    replace_gauge(WORKERS, repository.workers_by_capability(session))
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
