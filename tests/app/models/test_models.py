"""Uploading, showing, changing and deleting models."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from app.artifacts.records import BlobRecord
from app.config import Settings
from app.db import Database
from app.jobs.records import JobInputRecord, JobRecord
from app.models.records import ModelRecord
from tests.builders import add_key, add_model, add_project, safetensors
from tests.inspector import BAD, Inspector

CONTENT = safetensors(b"weights")


async def upload(client: httpx.AsyncClient, content: bytes = CONTENT, **options: Any) -> httpx.Response:
    data = options.pop("data", {})
    files = {"file": (options.pop("filename", "model.safetensors"), content)}
    return await client.post("/v1/models", files=files, data=data, **options)


def leftovers(settings: Settings) -> list[Path]:
    return list(settings.scratch_dir.iterdir())


async def test_an_upload_is_ready_once_inspected(client: httpx.AsyncClient, inspector: Inspector) -> None:
    response = await upload(client, data={"name": "digits", "labels": '{"team": "search"}', "license": "MIT"})
    assert response.status_code == 201, response.text
    model = response.json()
    assert response.headers["location"] == f"/v1/models/{model['id']}"
    assert model["object"] == "model"
    assert model["status"] == "ready"
    assert model["error"] is None
    assert model["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert (model["name"], model["labels"], model["license"]) == ("digits", {"team": "search"}, "MIT")
    assert (model["family"], model["parameters"]) == ("neural_network", 4810)
    assert model["inputs"] == [{"name": "input", "shape": ["batch", 64], "dtype": "float32"}]
    assert (await client.get(f"/v1/models/{model['id']}")).json() == model


async def test_the_same_bytes_again_are_the_same_model(client: httpx.AsyncClient, inspector: Inspector) -> None:
    first = await upload(client)
    again = await upload(client, filename="other.safetensors")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()


async def test_a_rejected_upload_leaves_nothing(
    client: httpx.AsyncClient, inspector: Inspector, database: Database, settings: Settings
) -> None:
    response = await upload(client, safetensors(BAD))
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.json()["code"], response.json()["reason"]) == ("invalid_model", "not_finite")
    assert leftovers(settings) == []
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(ModelRecord)) == 0
        assert session.scalars(select(BlobRecord.references)).all() == [0]


async def test_without_a_worker_the_upload_is_accepted_and_inspected_later(
    client: httpx.AsyncClient, settings: Settings, database: Database, storage: Any, services: Any
) -> None:
    object.__setattr__(services.settings, "inspection_wait_seconds", 0.0)
    good, bad = await upload(client), await upload(client, safetensors(BAD))
    assert (good.status_code, bad.status_code) == (202, 202)
    assert good.json()["status"] == "inspecting"
    inspector = Inspector(database, storage)
    while inspector.inspect_next():
        pass
    assert (await client.get(f"/v1/models/{good.json()['id']}")).json()["status"] == "ready"
    rejected = (await client.get(f"/v1/models/{bad.json()['id']}")).json()
    assert rejected["status"] == "rejected"
    assert rejected["error"]["code"] == "invalid_model"


async def test_parallel_uploads_of_the_same_bad_bytes_all_get_the_reason(
    client: httpx.AsyncClient, inspector: Inspector
) -> None:
    responses = await asyncio.gather(*(upload(client, safetensors(BAD)) for _ in range(4)))
    assert {(response.status_code, response.json()["code"]) for response in responses} == {(422, "invalid_model")}


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"\x80\x04K\x01.", 415, "unsupported_format"),
        (b"\x7fELF" + bytes(64), 415, "unsupported_format"),
        (b"", 422, "invalid_model"),
        (b"hello", 415, "unsupported_format"),
    ],
    ids=["pickle", "native code", "empty", "text"],
)
async def test_cheap_checks_answer_at_once(
    client: httpx.AsyncClient, settings: Settings, content: bytes, status: int, code: str
) -> None:
    response = await upload(client, content)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert leftovers(settings) == []


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        ({"labels": "{"}, "/labels"),
        ({"labels": '{"a": 1}'}, "/labels/a"),
        ({"name": "a\nb"}, "/name"),
        ({"status": "ready"}, "/status"),
        ({"labels": "[" * 50_000}, "/labels"),
    ],
)
async def test_bad_fields_are_named(client: httpx.AsyncClient, data: dict[str, str], pointer: str) -> None:
    response = await upload(client, data=data)
    assert response.status_code == 422, response.text
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]


async def test_an_upload_without_a_file_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/models", files={"name": (None, "x")})
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "/file")


@pytest.mark.parametrize(
    "filename", ["../../etc/passwd", "..\\..\\boot.ini", "\u202egnp.exe", "a" * 10_000, "n\0ul", ""]
)
async def test_hostile_file_names_are_only_text(
    client: httpx.AsyncClient, inspector: Inspector, settings: Settings, filename: str
) -> None:
    response = await upload(client, filename=filename)
    if response.status_code == 422:
        assert response.json()["errors"][0]["pointer"] == "/file"
        return
    assert response.status_code == 201, response.text
    name = response.json()["name"]
    assert len(name) <= 200
    assert not set(name) & set("/\\\0\u202e")
    content = await client.get(f"/v1/models/{response.json()['id']}/content")
    assert content.headers["content-disposition"].startswith("attachment; ")
    assert leftovers(settings) == []


async def test_content_is_the_original_with_ranges(client: httpx.AsyncClient, inspector: Inspector) -> None:
    model = (await upload(client)).json()
    url = f"/v1/models/{model['id']}/content"
    whole = await client.get(url)
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert whole.headers["etag"] == f'"{model["sha256"]}"'
    assert whole.headers["x-content-type-options"] == "nosniff"
    part = await client.get(url, headers={"Range": "bytes=2-5", "If-Range": whole.headers["etag"]})
    assert (part.status_code, part.content) == (206, CONTENT[2:6])
    assert part.headers["content-range"] == f"bytes 2-5/{len(CONTENT)}"
    assert (await client.get(url, headers={"Range": "bytes=-3"})).content == CONTENT[-3:]
    assert (await client.get(url, headers={"Range": "bytes=7-"})).content == CONTENT[7:]
    stale = await client.get(url, headers={"Range": "bytes=2-5", "If-Range": '"other"'})
    assert (stale.status_code, stale.content) == (200, CONTENT)
    outside = await client.get(url, headers={"Range": "bytes=9999-"})
    assert (outside.status_code, outside.json()["code"]) == (416, "range_not_satisfiable")
    assert outside.headers["content-range"] == f"bytes */{len(CONTENT)}"
    known = await client.get(url, headers={"If-None-Match": whole.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    head = await client.head(url)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(CONTENT)))


async def test_tensors_come_in_graph_order_page_by_page(client: httpx.AsyncClient, database: Database) -> None:
    with database.transaction() as session:
        model = add_model(session, add_project(session).id)
        tensors = [{"name": f"t{i}", "shape": [1], "dtype": "float32", "bytes": 4, "sparsity": 0.0} for i in range(5)]
        model.inspection = {**(model.inspection or {}), "tensors": tensors}
    url = f"/v1/models/{model.id}/tensors"
    first = (await client.get(url, params={"limit": 3})).json()
    second = (await client.get(url, params={"limit": 3, "after": first["next"]})).json()
    assert [tensor["name"] for tensor in first["data"] + second["data"]] == ["t0", "t1", "t2", "t3", "t4"]
    assert (first["has_more"], second["has_more"], second["next"]) == (True, False, None)
    assert (await client.get(url, params={"after": "x"})).status_code == 422


async def test_rename_and_relabel(client: httpx.AsyncClient, database: Database) -> None:
    with database.transaction() as session:
        model = add_model(session, add_project(session).id)
    changed = await client.patch(f"/v1/models/{model.id}", json={"name": "new", "labels": {"a": "b"}})
    assert (changed.json()["name"], changed.json()["labels"]) == ("new", {"a": "b"})
    refused = await client.patch(f"/v1/models/{model.id}", json={"status": "ready"})
    assert refused.json()["errors"] == [{"pointer": "/status", "detail": "Extra inputs are not permitted"}]


async def test_a_model_in_use_is_not_deleted(client: httpx.AsyncClient, database: Database) -> None:
    with database.transaction() as session:
        project = add_project(session)
        model = add_model(session, project.id)
        job = JobRecord(
            project_id=project.id, kind="compress", status="queued", capability="cpu", spec={}, timeout_seconds=1.0
        )
        session.add(job)
        session.flush()
        session.add(JobInputRecord(job_id=job.id, input_id=model.id))
    response = await client.delete(f"/v1/models/{model.id}")
    assert (response.status_code, response.json()["code"]) == (409, "in_use")
    with database.transaction() as session:
        session.get_one(JobRecord, job.id).status = "succeeded"
    assert (await client.delete(f"/v1/models/{model.id}")).status_code == 204
    assert (await client.get(f"/v1/models/{model.id}")).status_code == 404
    with database.reading() as session:
        assert session.scalars(select(BlobRecord.references)).all() == [0]


async def test_another_projects_model_does_not_exist(client: httpx.AsyncClient, database: Database) -> None:
    with database.transaction() as session:
        model = add_model(session, add_project(session, "other").id)
    client.headers["Authorization"] = f"Bearer {add_key(database, 'admin')}"
    for method, path in [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/content"), ("GET", "/tensors")]:
        response = await client.request(
            method, f"/v1/models/{model.id}{path}", json={"name": "x"} if method == "PATCH" else None
        )
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert (await client.get("/v1/models")).json()["data"] == []


async def test_lists_are_newest_first_and_filtered(client: httpx.AsyncClient, database: Database) -> None:
    with database.transaction() as session:
        project = add_project(session)
        ids = [add_model(session, project.id, sha256=f"{i:064x}").id for i in range(5)]
        session.get_one(ModelRecord, ids[3]).labels = {"team": "search"}
        session.get_one(ModelRecord, ids[1]).status = "rejected"
    ids.sort()
    first = (await client.get("/v1/models", params={"limit": 2})).json()
    assert [model["id"] for model in first["data"]] == ids[:2:-1]
    assert first["has_more"]
    rest = (await client.get("/v1/models", params={"after": first["next"]})).json()
    assert [model["id"] for model in rest["data"]] == ids[2::-1]
    labelled = (await client.get("/v1/models", params={"label.team": "search"})).json()["data"]
    assert [model["labels"] for model in labelled] == [{"team": "search"}]
    assert len((await client.get("/v1/models", params={"status": "rejected"})).json()["data"]) == 1
    assert (await client.get("/v1/models", params={"created_after": "2100-01-01T00:00:00Z"})).json()["data"] == []
    assert len((await client.get("/v1/models", params={"created_before": "2100-01-01T00:00:00Z"})).json()["data"]) == 5
    assert (await client.get("/v1/models", params={"limit": 1000})).status_code == 422
    assert (await client.get("/v1/models", params={"status": "sleeping"})).status_code == 422
