"""``/v1/artifacts``."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.artifacts import service
from app.artifacts.schemas import ArtifactRead
from app.artifacts.views import artifact_read
from app.dependencies import Reader, ReadSession, ServicesDep
from app.downloads import DOWNLOAD_RESPONSES, Download, download_response
from app.errors import problem_responses
from workers.compression.specs.errors import Code

router = APIRouter(prefix="/v1/artifacts", tags=["artifacts"])

NOT_FOUND = problem_responses(Code.NOT_FOUND)


@router.get("/{artifact_id}", responses=NOT_FOUND)
def get_artifact(artifact_id: str, session: ReadSession, principal: Reader) -> ArtifactRead:
    """One artifact."""
    return artifact_read(service.get(session, principal.project_id, artifact_id))


@router.head("/{artifact_id}/content", include_in_schema=False)
@router.get(
    "/{artifact_id}/content",
    response_class=Response,
    responses={**DOWNLOAD_RESPONSES, **problem_responses(Code.NOT_FOUND, Code.RANGE_NOT_SATISFIABLE)},
)
def get_content(
    artifact_id: str, request: Request, session: ReadSession, principal: Reader, services: ServicesDep
) -> Response:
    """The artifact's bytes; takes ``Range``, ``If-Range`` and ``If-None-Match``."""
    artifact = service.get(session, principal.project_id, artifact_id)
    download = Download(artifact.sha256, artifact.size_bytes, artifact.name)
    return download_response(request, services.storage, download)
