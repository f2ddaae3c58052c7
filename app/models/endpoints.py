"""``/v1/models``."""

from fastapi import APIRouter, Request, Response

from app import intake
from app.dependencies import Reader, ReadSession, ServicesDep, Writer, WriteSession
from app.downloads import DOWNLOAD_RESPONSES, Download, download_response
from app.errors import problem_responses
from app.jobs import service as jobs_service
from app.jobs.endpoints import LINK_TO_JOB
from app.jobs.schemas import AnalysisCreate, JobRead
from app.jobs.views import job_read
from app.models import lineage as lineages
from app.models import repository, service
from app.models.schemas import Lineage, ModelForm, ModelPatch, ModelPromote, ModelRead
from app.models.views import model_read
from app.pagination import Filtering, ListPage, Paging, list_page, page_by_position, split_page
from app.upload_docs import upload_operation, upload_responses
from app.uploads import receive_upload
from workers.compression.specs.errors import Code
from workers.compression.specs.metrics import TensorStatistics

router = APIRouter(prefix="/v1/models", tags=["models"])

NOT_FOUND = problem_responses(Code.NOT_FOUND)
REFUSALS = problem_responses(
    Code.INVALID_SPEC, Code.UNSUPPORTED_TECHNIQUE, Code.DATASET_MISMATCH, Code.OUT_OF_MEMORY, Code.OUT_OF_DISK
)


@router.post(
    "",
    status_code=201,
    responses=upload_responses(ModelRead) | NOT_FOUND | problem_responses(Code.INVALID_MODEL),
    openapi_extra=upload_operation(ModelForm, ModelPromote),
)
async def create_model(request: Request, response: Response, services: ServicesDep, principal: Writer) -> ModelRead:
    """Uploads a model, or promotes an artifact to one; waits a while for the inspection."""
    if intake.is_multipart(request):
        async with receive_upload(request, services.settings) as upload:
            model, is_new = await service.add_upload(services, principal.project_id, upload)
    else:
        promotion = intake.parse_json(ModelPromote, await request.body())
        model, is_new = await services.in_transaction(
            lambda session: service.promote(session, principal.project_id, promotion)
        )
    model = await service.settle(services, model, is_new=is_new)
    intake.announce(response, f"/v1/models/{model.id}", model, is_new=is_new)
    return model_read(model)


@router.get("")
def list_models(session: ReadSession, principal: Reader, paging: Paging, filters: Filtering) -> ListPage[ModelRead]:
    """Models, newest first. ``label.<key>=<value>`` narrows to a label."""
    models, has_more = split_page(repository.list_page(session, principal.project_id, filters, paging), paging)
    return list_page([model_read(model) for model in models], has_more=has_more)


@router.get("/{model_id}", responses=NOT_FOUND)
def get_model(model_id: str, session: ReadSession, principal: Reader) -> ModelRead:
    """One model."""
    return model_read(service.get(session, principal.project_id, model_id))


@router.patch("/{model_id}", responses=NOT_FOUND)
def change_model(model_id: str, body: ModelPatch, session: WriteSession, principal: Writer) -> ModelRead:
    """Renames or relabels a model."""
    return model_read(service.change(session, principal.project_id, model_id, body))


@router.delete("/{model_id}", status_code=204, responses=problem_responses(Code.NOT_FOUND, Code.IN_USE))
def delete_model(model_id: str, session: WriteSession, principal: Writer) -> None:
    """Deletes a model that no job uses."""
    service.delete(session, principal.project_id, model_id)


@router.head("/{model_id}/content", include_in_schema=False)
@router.get(
    "/{model_id}/content",
    response_class=Response,
    responses={**DOWNLOAD_RESPONSES, **problem_responses(Code.NOT_FOUND, Code.RANGE_NOT_SATISFIABLE)},
)
def get_content(
    model_id: str, request: Request, session: ReadSession, principal: Reader, services: ServicesDep
) -> Response:
    """The bytes as they were uploaded; takes ``Range``, ``If-Range`` and ``If-None-Match``."""
    model = service.get(session, principal.project_id, model_id)
    download = Download(model.sha256, model.size_bytes, model.filename or model.name)
    return download_response(request, services.storage, download)


@router.get("/{model_id}/tensors", responses=NOT_FOUND)
def list_tensors(model_id: str, session: ReadSession, principal: Reader, paging: Paging) -> ListPage[TensorStatistics]:
    """The model's tensors in graph order; none until it is ready."""
    model = service.get(session, principal.project_id, model_id)
    rows, following = page_by_position((model.inspection or {}).get("tensors", []), paging)
    tensors = [TensorStatistics.model_validate(row) for row in rows]
    return ListPage(data=tensors, has_more=following is not None, next=following)


@router.get("/{model_id}/lineage", responses=NOT_FOUND)
def get_lineage(model_id: str, session: ReadSession, principal: Reader) -> Lineage:
    """What the model was made from and what was made from it."""
    return lineages.lineage(session, service.get(session, principal.project_id, model_id))


@router.post(
    "/{model_id}/analyze",
    status_code=202,
    response_model=JobRead,
    responses={202: LINK_TO_JOB, **NOT_FOUND, **REFUSALS, **problem_responses(Code.RATE_LIMITED)},
)
def analyze(
    model_id: str,
    response: Response,
    session: WriteSession,
    principal: Writer,
    services: ServicesDep,
    request: AnalysisCreate | None = None,
) -> JobRead:
    """Submits a job that measures how far the outputs move when one layer at a time is quantized.

    Its `layers` and its report hold the result. What an earlier job measured on the same rows is not measured again,
    and jobs with `quantize.mixed` go by what an analysis has measured.
    """
    model = service.get(session, principal.project_id, model_id)
    asked = request or AnalysisCreate()
    job = jobs_service.submit_analysis(session, services.settings, principal.project_id, model.id, asked)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job_read(session, job)
