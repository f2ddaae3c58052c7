"""``/v1/models``."""

from fastapi import APIRouter, Request, Response

from app import intake
from app.dependencies import Reader, ReadSession, ServicesDep, Writer, WriteSession
from app.downloads import DOWNLOAD_RESPONSES, Download, download_response
from app.errors import problem_responses
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
