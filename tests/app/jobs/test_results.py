"""Reports, layers, logs and comparisons of finished jobs."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from app.db import Database
from app.jobs import repository
from app.storage import Storage
from tests.job_builders import LAYERS, METRICS, REPORT, add_artifact, fail, start, succeed

PAGE = b"<!doctype html><title>Report</title>"
ERROR = {
    "type": "urn:pressroom:problem:timeout",
    "title": "Timeout",
    "status": 422,
    "detail": "Too slow.",
    "code": "timeout",
    "owner": "caller",
    "retryable": False,
}


async def submit(client: httpx.AsyncClient, model_id: str, **fields: Any) -> str:
    body = {"model": model_id, "recipe": [{"technique": "quantize"}]} | fields
    job_id: str = (await client.post("/v1/jobs", json=body)).json()["id"]
    return job_id


@pytest.fixture
async def finished(
    client: httpx.AsyncClient, model_id: str, database: Database, storage: Storage, tmp_path: Path
) -> str:
    job_id = await submit(client, model_id)
    job = succeed(database, job_id)
    add_artifact(database, storage, job, tmp_path, "report.html", PAGE)
    add_artifact(database, storage, job, tmp_path, "report.md", b"# Report")
    return job_id


async def test_the_report_is_json_by_default(client: httpx.AsyncClient, finished: str) -> None:
    response = await client.get(f"/v1/jobs/{finished}/report")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == REPORT


@pytest.mark.parametrize(("accept", "content"), [("text/html", PAGE), ("text/markdown", b"# Report")])
async def test_stored_pages_are_served_so_that_nothing_in_them_runs(
    client: httpx.AsyncClient, finished: str, accept: str, content: bytes
) -> None:
    response = await client.get(f"/v1/jobs/{finished}/report", headers={"Accept": accept})
    assert response.content == content
    assert response.headers["content-type"].startswith(accept)
    assert response.headers["x-content-type-options"] == "nosniff"
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy
    assert "sandbox" in policy


async def test_other_forms_of_the_report_are_not_acceptable(client: httpx.AsyncClient, finished: str) -> None:
    response = await client.get(f"/v1/jobs/{finished}/report", headers={"Accept": "application/pdf"})
    assert (response.status_code, response.json()["code"]) == (406, "not_acceptable")


async def test_there_are_no_results_before_the_end(client: httpx.AsyncClient, model_id: str) -> None:
    job_id = await submit(client, model_id)
    for path in ("report", "layers"):
        response = await client.get(f"/v1/jobs/{job_id}/{path}")
        assert (response.status_code, response.json()["code"]) == (409, "job_not_finished")


async def test_a_failed_job_has_no_report(client: httpx.AsyncClient, model_id: str, database: Database) -> None:
    job_id = await submit(client, model_id)
    fail(database, job_id, ERROR)
    response = await client.get(f"/v1/jobs/{job_id}/report")
    assert (response.status_code, response.json()["reason"]) == (404, "no_report")


async def test_layers_come_in_graph_order_page_by_page(client: httpx.AsyncClient, finished: str) -> None:
    path = f"/v1/jobs/{finished}/layers"
    first = (await client.get(path, params={"limit": 2})).json()
    last = (await client.get(path, params={"limit": 2, "after": first["next"]})).json()
    names = [layer["name"] for layer in first["data"] + last["data"]]
    assert names == [layer["name"] for layer in LAYERS]
    assert (first["has_more"], last["has_more"]) == (True, False)
    assert first["data"][0]["bytes_after"] == 4096
    assert (await client.get(path, params={"after": "x"})).status_code == 422


async def test_logs_are_plain_text(client: httpx.AsyncClient, model_id: str, database: Database) -> None:
    job_id = await submit(client, model_id)
    assert (await client.get(f"/v1/jobs/{job_id}/logs")).text == ""
    job = start(database, job_id)
    with database.transaction() as session:
        repository.note(session, job_id, job.token, log="opened <the> model\n")
    response = await client.get(f"/v1/jobs/{job_id}/logs")
    assert response.text == "opened <the> model\n"
    assert response.headers["content-type"].startswith("text/plain")
    listed = await client.get(f"/v1/jobs/{job_id}/logs", headers={"Accept": "application/json"})
    assert listed.json()["data"] == ["opened <the> model"]
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_jobs_are_compared_figure_by_figure(
    client: httpx.AsyncClient, model_id: str, finished: str, database: Database
) -> None:
    better = METRICS["compressed"] | {"size_bytes": 5_000, "accuracy": 0.9}
    other = await submit(client, model_id, labels={"try": "2"})
    succeed(database, other, metrics=METRICS | {"compressed": better})
    waiting = await submit(client, model_id)
    response = await client.get("/v1/comparisons", params={"job": [finished, other, waiting]})
    comparison = response.json()
    assert response.status_code == 200
    assert [job["id"] for job in comparison["jobs"]] == [finished, other, waiting]
    rows = {row["name"]: row for row in comparison["metrics"]}
    assert rows["size_bytes"]["original"] == [19_240, 19_240, None]
    assert rows["size_bytes"]["compressed"] == [5_500, 5_000, None]
    assert (rows["size_bytes"]["better"], rows["size_bytes"]["best"]) == ("lower", other)
    assert (rows["accuracy"]["better"], rows["accuracy"]["best"]) == ("higher", finished)
    assert rows["latency_ms.1.p50"]["compressed"] == [0.015, 0.015, None]
    assert not any(name.startswith("intervals") for name in rows)


async def test_comparing_what_is_not_there_is_refused(client: httpx.AsyncClient, finished: str) -> None:
    assert (await client.get("/v1/comparisons", params={"job": [finished, "job_x"]})).status_code == 404
    assert (await client.get("/v1/comparisons")).status_code == 422
