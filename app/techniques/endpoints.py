"""HTTP route of the catalogue."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.dependencies import Reader, ReadSession
from app.pagination import ListPage
from app.problems import problem_responses
from app.techniques import service
from app.techniques.schemas import TechniqueRead
from workers.compression.specs.errors import Code

router = APIRouter(prefix="/v1/techniques", tags=["discovery"])


@router.get(
    "",
    response_model=ListPage[TechniqueRead],
    response_model_exclude_unset=True,
    responses=problem_responses(Code.NOT_FOUND, Code.CONFLICT),
)
def list_techniques(
    session: ReadSession,
    principal: Reader,
    model: Annotated[str | None, Query(max_length=40, description="Adds `applies` and `why_not`.")] = None,
) -> dict[str, Any]:
    """Lists what can be done to a model: one entry per technique and method, in the order of their names."""
    found = service.catalogue() if model is None else service.catalogue_for(session, principal.project_id, model)
    return {"object": "list", "data": found, "has_more": False, "next": None}
