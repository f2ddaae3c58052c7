"""HTTP route of comparisons."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.comparisons import service
from app.comparisons.schemas import JobComparison
from app.dependencies import Reader, ReadSession
from app.problems import problem_responses
from workers.compression.specs.errors import Code

router = APIRouter(prefix="/v1/comparisons", tags=["jobs"])


@router.get("", response_model=JobComparison, responses=problem_responses(Code.NOT_FOUND))
def compare(
    session: ReadSession,
    principal: Reader,
    job: Annotated[list[str], Query(min_length=1, max_length=50, description="Jobs to compare; repeat it.")],
) -> JobComparison:
    """Shows the same metrics of several jobs side by side."""
    return service.compare(session, principal.project_id, job)
