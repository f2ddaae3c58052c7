"""Jobs as they are shown, waited for, cancelled, listed, relabelled and deleted."""

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx

from app.artifacts.records import ArtifactRecord, BlobRecord
from app.db import Database
from app.jobs.records import EventRecord, JobRecord
from app.storage import Storage
from tests import builders
from tests.job_builders import METRICS, add_artifact, fail, report_progress, start, succeed

RECIPE = [{"technique": "quantize"}]


async def submit(client: httpx.AsyncClient, model_id: str, **fields: Any) -> str:
    response = await client.post("/v1/jobs", json={"model": model_id, "recipe": RECIPE} | fields)
    assert response.status_code == 202, response.text
    job_id: str = response.json()["id"]
    return job_id


async def test_a_running_job_shows_its_progress(client: httpx.AsyncClient, model_id: str, database: Database) -> None:
    job_id = await submit(client, model_id)
    report_progress(database, start(database, job_id), 0.25)
    job = (await client.get(f"/v1/jobs/{job_id}")).json()
    assert (job["status"], job["done"], job["attempt"]) == ("running", False, 1)
    assert job["queue"] == {"name": "cpu", "position": None}
    assert job["progress"] == {"fraction": 0.25, "step": "recipe/0", "message": "Working", "eta_seconds": 1.5}
    assert job["started_at"] is not None


async def test_a_finished_job_shows_figures_and_artifacts(
    client: httpx.AsyncClient, model_id: str, database: Database, storage: Storage, tmp_path: Path
) -> None:
    job_id = await submit(client, model_id)
    add_artifact(database, storage, succeed(database, job_id), tmp_path, "model.onnx", b"smaller")
    job = (await client.get(f"/v1/jobs/{job_id}")).json()
    assert (job["status"], job["done"], job["outcome"]) == ("succeeded", True, "unconstrained")
    assert job["termination_reason"] == "completed"
    assert job["metrics"] == METRICS
    assert [artifact["name"] for artifact in job["artifacts"]] == ["model.onnx"]
    listed = (await client.get(f"/v1/jobs/{job_id}/artifacts")).json()
    assert listed["data"] == job["artifacts"]


async def test_a_failed_job_carries_a_problem(client: httpx.AsyncClient, model_id: str, database: Database) -> None:
    job_id = await submit(client, model_id)
    error = {
        "type": "urn:pressroom:problem:nothing_compressed",
        "title": "Nothing compressed",
        "status": 422,
        "detail": "Nothing changed.",
        "code": "nothing_compressed",
        "owner": "caller",
        "retryable": False,
        "step": "recipe/0",
        "hint": "Try another method.",
    }
    fail(database, job_id, error)
    job = (await client.get(f"/v1/jobs/{job_id}")).json()
    assert (job["status"], job["outcome"], job["metrics"]) == ("failed", None, None)
    assert job["error"] == error


async def test_a_job_of_another_project_does_not_exist(
    client: httpx.AsyncClient, model_id: str, database: Database
) -> None:
    job_id = await submit(client, model_id)
    headers = {"Authorization": f"Bearer {builders.add_key(database, 'admin', project='other')}"}
    reads = [("GET", path) for path in ("", "/events", "/logs", "/report", "/layers", "/artifacts")]
    for method, path in (*reads, ("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")):
        response = await client.request(method, f"/v1/jobs/{job_id}{path}", headers=headers)
        assert (response.status_code, response.json()["code"]) == (404, "not_found"), path


async def test_reading_does_not_allow_writing(client: httpx.AsyncClient, model_id: str, database: Database) -> None:
    job_id = await submit(client, model_id)
    headers = {"Authorization": f"Bearer {builders.add_key(database, 'read')}"}
    assert (await client.get(f"/v1/jobs/{job_id}", headers=headers)).status_code == 200
    for method, path in (("POST", f"/v1/jobs/{job_id}/cancel"), ("DELETE", f"/v1/jobs/{job_id}")):
        assert (await client.request(method, path, headers=headers)).status_code == 403
    body = {"model": model_id, "recipe": RECIPE}
    assert (await client.post("/v1/jobs", json=body, headers=headers)).status_code == 403


async def test_waiting_ends_with_the_job(client: httpx.AsyncClient, model_id: str, database: Database) -> None:
    job_id = await submit(client, model_id)
    waiting = asyncio.create_task(client.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=20"}))
    started = time.monotonic()
    await asyncio.to_thread(succeed, database, job_id)
    response = await waiting
    assert response.json()["status"] == "succeeded"
    assert response.headers["preference-applied"] == "wait=20"
    assert time.monotonic() - started < 5


async def test_waiting_ends_by_its_time(client: httpx.AsyncClient, model_id: str) -> None:
    job_id = await submit(client, model_id)
    response = await client.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=1"})
    assert response.json()["status"] == "queued"
    assert response.headers["preference-applied"] == "wait=1"


async def test_a_queued_job_is_cancelled_at_once_and_only_once(client: httpx.AsyncClient, model_id: str) -> None:
    job_id = await submit(client, model_id)
    response = await client.post(f"/v1/jobs/{job_id}/cancel")
    job = response.json()
    assert (response.status_code, job["status"], job["done"]) == (202, "cancelled", True)
    assert job["termination_reason"] == "cancel_requested"
    again = await client.post(f"/v1/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "job_finished")


async def test_cancelling_a_running_job_is_idempotent(
    client: httpx.AsyncClient, model_id: str, database: Database
) -> None:
    job_id = await submit(client, model_id)
    start(database, job_id)
    for _ in range(2):
        response = await client.post(f"/v1/jobs/{job_id}/cancel")
        assert (response.status_code, response.json()["status"]) == (202, "cancelling")


async def test_labels_are_replaced(client: httpx.AsyncClient, model_id: str) -> None:
    job_id = await submit(client, model_id, labels={"a": "1"})
    response = await client.patch(f"/v1/jobs/{job_id}", json={"labels": {"b": "2"}})
    assert response.json()["labels"] == {"b": "2"}
    assert (await client.get(f"/v1/jobs/{job_id}")).json()["labels"] == {"b": "2"}
    for body in ({"labels": {"b": 2}}, {"status": "succeeded"}, {}):
        assert (await client.patch(f"/v1/jobs/{job_id}", json=body)).status_code == 422


async def test_deleting_takes_the_artifacts_along(
    client: httpx.AsyncClient, model_id: str, database: Database, storage: Storage, tmp_path: Path
) -> None:
    job_id = await submit(client, model_id)
    refused = await client.delete(f"/v1/jobs/{job_id}")
    assert (refused.status_code, refused.json()["code"]) == (409, "job_not_finished")
    sha256 = add_artifact(database, storage, succeed(database, job_id), tmp_path, "model.onnx", b"smaller")
    assert (await client.delete(f"/v1/jobs/{job_id}")).status_code == 204
    assert (await client.get(f"/v1/jobs/{job_id}")).status_code == 404
    with database.reading() as session:
        assert session.get_one(BlobRecord, sha256).references == 0
        for record in (JobRecord, ArtifactRecord, EventRecord):
            assert session.query(record).count() == 0


async def listed(client: httpx.AsyncClient, **params: Any) -> list[str]:
    response = await client.get("/v1/jobs", params=params)
    assert response.status_code == 200, response.text
    return [job["id"] for job in response.json()["data"]]


async def test_jobs_are_listed_page_by_page_newest_first(client: httpx.AsyncClient, model_id: str) -> None:
    newest_first = [await submit(client, model_id) for _ in range(5)][::-1]
    pages, after = [], None
    while True:
        page = (await client.get("/v1/jobs", params={"limit": 2} | ({"after": after} if after else {}))).json()
        pages.append([job["id"] for job in page["data"]])
        after = page["next"]
        if not page["has_more"]:
            break
    assert pages == [newest_first[:2], newest_first[2:4], newest_first[4:]]
    assert after is None


async def test_lists_are_narrowed(
    client: httpx.AsyncClient, model_id: str, database: Database, project_id: str
) -> None:
    with database.transaction() as session:
        other_model = builders.add_model(session, project_id, sha256="c" * 64).id
    red = await submit(client, model_id, labels={"team": "red", "a.b": "x y"})
    blue = await submit(client, other_model, labels={"team": "blue"})
    await client.post(f"/v1/jobs/{red}/cancel")
    created = (await client.get(f"/v1/jobs/{blue}")).json()["created_at"]
    assert await listed(client, status="cancelled") == [red]
    assert await listed(client, model=other_model) == [blue]
    assert await listed(client, **{"label.team": "red"}) == [red]
    assert await listed(client, **{"label.a.b": "x y"}) == [red]
    assert await listed(client, **{"label.team": "green"}) == []
    assert await listed(client, created_before=created) == [red]
    assert await listed(client, created_after=created) == []
    assert await listed(client, status="queued", model=model_id) == []


async def test_nonsense_in_a_list_is_refused(client: httpx.AsyncClient) -> None:
    for params in ({"limit": 1000}, {"limit": 0}, {"created_after": "yesterday"}, {"status": "sleeping"}):
        response = await client.get("/v1/jobs", params=params)
        assert (response.status_code, response.json()["code"]) == (422, "invalid_spec"), params
