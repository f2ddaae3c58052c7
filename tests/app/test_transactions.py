"""One owner of the session: what the client is told has been committed, and writers do not block each other."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import event, func, select
from sqlalchemy.engine import Connection

from app.config import Settings
from app.db import Database, after_commit
from app.keys.records import KeyRecord
from app.main import create_app
from app.models.records import ModelRecord
from app.storage import Storage
from tests.builders import add_model, add_project, safetensors
from tests.inspector import Inspector


async def test_a_commit_that_fails_is_never_told_as_a_success(client: httpx.AsyncClient, app: FastAPI) -> None:
    engine = app.state.services.database.engine

    def fail(_: Connection) -> None:
        raise RuntimeError("disk full")

    event.listen(engine, "commit", fail)
    response = await client.post("/v1/keys", json={})
    event.remove(engine, "commit", fail)
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert (await client.get("/v1/models")).status_code == 200


async def test_more_writers_than_threads_all_get_through(client: httpx.AsyncClient, database: Database) -> None:
    with database.transaction() as session:
        model = add_model(session, add_project(session).id)
    requests = [client.patch(f"/v1/models/{model.id}", json={"name": f"name {i}"}) for i in range(80)]
    responses = await asyncio.gather(*requests)
    assert {response.status_code for response in responses} == {200}


def test_what_waits_for_the_commit_is_forgotten_with_it(any_database: Database) -> None:
    sent: list[str] = []

    def fail() -> None:
        with any_database.transaction() as session:
            after_commit(session, lambda: sent.append("lost"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with any_database.transaction() as session:
        after_commit(session, lambda: sent.append("kept"))
        assert sent == []
    assert sent == ["kept"]


@pytest.fixture
async def postgres_client(settings: Settings, postgres_database: Database) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings.model_copy(update={"database_url": postgres_database.url}))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client


async def test_postgresql_serves_the_same_requests(
    postgres_client: httpx.AsyncClient, postgres_database: Database, storage: Storage
) -> None:
    files = {"file": ("m.safetensors", safetensors(b"weights"))}
    with Inspector(postgres_database, storage):
        response = await postgres_client.post(
            "/v1/models", files=files, data={"labels": '{"team": "search"}'}, headers={"Idempotency-Key": "k"}
        )
    assert response.status_code == 201, response.text
    model = response.json()
    found = await postgres_client.get("/v1/models", params={"label.team": "search", "status": "ready"})
    assert [entry["id"] for entry in found.json()["data"]] == [model["id"]]
    assert (await postgres_client.get("/v1/models", params={"label.team": "other"})).json()["data"] == []
    nul = await postgres_client.patch(f"/v1/models/{model['id']}", json={"labels": {"a": "b\0c"}})
    assert (nul.status_code, nul.json()["code"]) == (422, "invalid_spec")
    assert (await postgres_client.get("/v1/models/mdl_%00")).status_code in {404, 422}
    assert (await postgres_client.post("/v1/keys", json={})).status_code == 201
    with postgres_database.reading() as session:
        assert session.scalar(select(func.count()).select_from(ModelRecord)) == 1
        assert session.scalar(select(func.count()).select_from(KeyRecord)) == 1
