"""The routes of jobs on PostgreSQL, which is stricter than SQLite about text and about locks."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.config import Settings
from app.db import Database
from app.main import create_app
from tests import builders
from tests.job_builders import add_worker, start, succeed

RECIPE = [{"technique": "quantize"}]


@pytest.fixture
async def client(settings: Settings, postgres_database: Database) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings.model_copy(update={"database_url": postgres_database.url}))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        yield client


@pytest.fixture
def model_id(postgres_database: Database) -> str:
    with postgres_database.transaction() as session:
        return builders.add_model(session, builders.add_project(session).id).id


async def submit(client: httpx.AsyncClient, model_id: str, **fields: Any) -> str:
    response = await client.post("/v1/jobs", json={"model": model_id, "recipe": RECIPE} | fields)
    assert response.status_code == 202, response.text
    job_id: str = response.json()["id"]
    return job_id


async def test_a_job_lives_and_is_deleted(
    client: httpx.AsyncClient, model_id: str, postgres_database: Database
) -> None:
    job_id = await submit(client, model_id, labels={"team": "red"})
    succeed(postgres_database, job_id)
    other = await submit(client, model_id)
    assert (await client.get(f"/v1/jobs/{other}")).json()["queue"]["position"] == 1
    listed = (await client.get("/v1/jobs", params={"label.team": "red", "status": "succeeded"})).json()
    assert [job["id"] for job in listed["data"]] == [job_id]
    estimate = (await client.post("/v1/jobs/estimate", json={"model": model_id, "recipe": RECIPE})).json()
    assert estimate["basis"]["similar_jobs"] == 1
    events = (await client.get(f"/v1/jobs/{job_id}/events")).json()["data"]
    assert [event["sequence"] for event in events] == [1, 2, 3, 4]
    assert (await client.delete(f"/v1/jobs/{job_id}")).status_code == 204
    assert (await client.post(f"/v1/jobs/{other}/cancel")).json()["status"] == "cancelled"


async def test_a_worker_shows_what_it_runs(
    client: httpx.AsyncClient, model_id: str, postgres_database: Database
) -> None:
    job_id = await submit(client, model_id)
    with postgres_database.transaction() as session:
        add_worker(session, "wrk_test")
    start(postgres_database, job_id)
    [worker] = (await client.get("/v1/workers")).json()["data"]
    assert (worker["status"], worker["running"]) == ("online", [job_id])
    assert (await client.get("/v1/targets")).json()["data"][0]["workers"] == ["wrk_test"]


async def test_text_that_the_database_cannot_hold_is_refused(client: httpx.AsyncClient, model_id: str) -> None:
    for text in ("\0", "a\0b", "\ud800"):
        bodies = ({"model": text}, {"data": {"evaluation": text}}, {"labels": {"a": text}}, {"labels": {text: "a"}})
        for fields in bodies:
            body = json.dumps({"model": model_id, "recipe": RECIPE} | fields)
            response = await client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
            assert response.status_code in {400, 422}, (fields, response.text)
    for path in ("/v1/jobs/%00", "/v1/jobs/a%00/events", "/v1/comparisons?job=%00", "/v1/techniques?model=%00"):
        assert (await client.get(path)).status_code in {404, 422}, path
    for query in ("model=%00", "after=%00", "label.a=%00", "status=%00"):
        assert (await client.get(f"/v1/jobs?{query}")).status_code in {200, 422}, query
