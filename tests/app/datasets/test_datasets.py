"""Uploading and showing datasets."""

import httpx
from sqlalchemy import func, select

from app.artifacts.records import BlobRecord
from app.datasets.records import DatasetRecord
from app.db import Database
from tests.inspector import BAD, Inspector

CSV = b"a,b,target\n1,2,0\n3,4,1\n"


async def upload(client: httpx.AsyncClient, content: bytes = CSV, **data: str) -> httpx.Response:
    return await client.post("/v1/datasets", files={"file": ("rows.csv", content)}, data=data)


async def test_an_upload_shows_what_was_found_and_what_was_said(
    client: httpx.AsyncClient, inspector: Inspector, database: Database
) -> None:
    response = await upload(client, target_column="target", task="classification", preprocessing='{"max_length": 64}')
    assert response.status_code == 201, response.text
    dataset = response.json()
    assert (dataset["object"], dataset["status"], dataset["rows"]) == ("dataset", "ready", 1797)
    assert (dataset["task"], len(dataset["classes"])) == ("classification", 10)
    assert dataset["fields"]["target"] == {"name": "target", "shape": [-1], "dtype": "int64"}
    assert dataset["preprocessing"]["max_length"] == 64
    assert (await client.get(f"/v1/datasets/{dataset['id']}")).json() == dataset
    with database.reading() as session:
        assert session.get_one(DatasetRecord, dataset["id"]).fields["target_column"] == "target"


async def test_the_same_bytes_read_another_way_are_another_dataset(
    client: httpx.AsyncClient, inspector: Inspector, database: Database
) -> None:
    first, same, other = await upload(client), await upload(client), await upload(client, target_column="b")
    assert [response.status_code for response in (first, same, other)] == [201, 200, 201]
    assert first.json()["id"] == same.json()["id"] != other.json()["id"]
    with database.reading() as session:
        assert session.scalars(select(BlobRecord.references)).all() == [2]


async def test_a_rejected_dataset_leaves_nothing(
    client: httpx.AsyncClient, inspector: Inspector, database: Database
) -> None:
    response = await upload(client, CSV + BAD)
    assert response.status_code == 422, response.text
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(DatasetRecord)) == 0


async def test_wrong_fields_are_named(client: httpx.AsyncClient) -> None:
    response = await upload(client, task="guessing", preprocessing='{"pooling": "max"}')
    assert {error["pointer"] for error in response.json()["errors"]} == {"/task", "/preprocessing/pooling"}


async def test_a_dataset_is_deleted_and_its_content_with_it(client: httpx.AsyncClient, inspector: Inspector) -> None:
    dataset = (await upload(client)).json()
    assert (await client.get(f"/v1/datasets/{dataset['id']}/content")).content == CSV
    assert (await client.delete(f"/v1/datasets/{dataset['id']}")).status_code == 204
    assert (await client.get(f"/v1/datasets/{dataset['id']}/content")).status_code == 404


async def test_a_dataset_is_no_json(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/datasets", json={"artifact": "art_1"})
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
