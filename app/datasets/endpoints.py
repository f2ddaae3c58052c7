"""``/v1/datasets``."""

from fastapi import APIRouter, Request, Response

from app import intake
from app.datasets import repository, service
from app.datasets.schemas import DatasetForm, DatasetPatch, DatasetRead
from app.datasets.views import dataset_read
from app.dependencies import Reader, ReadSession, ServicesDep, Writer, WriteSession
from app.downloads import DOWNLOAD_RESPONSES, Download, download_response
from app.errors import problem_responses
from app.pagination import Filtering, ListPage, Paging, list_page, split_page
from app.upload_docs import upload_operation, upload_responses
from app.uploads import receive_upload
from workers.compression.specs.errors import Code

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

NOT_FOUND = problem_responses(Code.NOT_FOUND)


@router.post(
    "",
    status_code=201,
    responses=upload_responses(DatasetRead) | problem_responses(Code.INVALID_DATASET),
    openapi_extra=upload_operation(DatasetForm),
)
async def create_dataset(request: Request, response: Response, services: ServicesDep, principal: Writer) -> DatasetRead:
    """Uploads a dataset; waits a while for the inspection."""
    async with receive_upload(request, services.settings) as upload:
        dataset, is_new = await service.add_upload(services, principal.project_id, upload)
    dataset = await service.settle(services, dataset, is_new=is_new)
    intake.announce(response, f"/v1/datasets/{dataset.id}", dataset, is_new=is_new)
    return dataset_read(dataset)


@router.get("")
def list_datasets(session: ReadSession, principal: Reader, paging: Paging, filters: Filtering) -> ListPage[DatasetRead]:
    """Datasets, newest first. ``label.<key>=<value>`` narrows to a label."""
    datasets, has_more = split_page(repository.list_page(session, principal.project_id, filters, paging), paging)
    return list_page([dataset_read(dataset) for dataset in datasets], has_more=has_more)


@router.get("/{dataset_id}", responses=NOT_FOUND)
def get_dataset(dataset_id: str, session: ReadSession, principal: Reader) -> DatasetRead:
    """One dataset."""
    return dataset_read(service.get(session, principal.project_id, dataset_id))


@router.patch("/{dataset_id}", responses=NOT_FOUND)
def change_dataset(dataset_id: str, body: DatasetPatch, session: WriteSession, principal: Writer) -> DatasetRead:
    """Renames or relabels a dataset."""
    return dataset_read(service.change(session, principal.project_id, dataset_id, body))


@router.delete("/{dataset_id}", status_code=204, responses=problem_responses(Code.NOT_FOUND, Code.IN_USE))
def delete_dataset(dataset_id: str, session: WriteSession, principal: Writer) -> None:
    """Deletes a dataset that no job uses."""
    service.delete(session, principal.project_id, dataset_id)


@router.head("/{dataset_id}/content", include_in_schema=False)
@router.get(
    "/{dataset_id}/content",
    response_class=Response,
    responses={**DOWNLOAD_RESPONSES, **problem_responses(Code.NOT_FOUND, Code.RANGE_NOT_SATISFIABLE)},
)
def get_content(
    dataset_id: str, request: Request, session: ReadSession, principal: Reader, services: ServicesDep
) -> Response:
    """The bytes as they were uploaded; takes ``Range``, ``If-Range`` and ``If-None-Match``."""
    dataset = service.get(session, principal.project_id, dataset_id)
    download = Download(dataset.sha256, dataset.size_bytes, dataset.filename or dataset.name)
    return download_response(request, services.storage, download)
