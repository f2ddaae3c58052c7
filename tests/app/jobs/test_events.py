"""A job's events, as a list and as a stream over a real socket."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import pytest

from app.db import Database
from app.jobs import streaming
from tests.job_builders import report_progress, start, succeed

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
async def over_socket(server_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server_url, timeout=10) as client:
        yield client


async def submit(client: httpx.AsyncClient, model_id: str) -> str:
    response = await client.post("/v1/jobs", json={"model": model_id, "recipe": [{"technique": "quantize"}]})
    assert response.status_code == 202, response.text
    job_id: str = response.json()["id"]
    return job_id


async def blocks(response: httpx.Response) -> AsyncIterator[dict[str, str]]:
    """The stream's blocks as their fields; a comment has the empty name."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if not line:
            yield fields
            fields = {}
        else:
            name, _, value = line.partition(":")
            fields[name] = value.strip()


async def read_all(client: httpx.AsyncClient, job_id: str, **headers: str) -> list[dict[str, Any]]:
    async with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=STREAM | headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        found = [block async for block in blocks(response)]
    for block in found:
        event = json.loads(block["data"])
        assert (block["id"], block["event"]) == (event["id"], event["type"])
    return [json.loads(block["data"]) for block in found]


async def test_a_finished_jobs_stream_tells_the_whole_story_and_closes(
    over_socket: httpx.AsyncClient, model_id: str, database: Database
) -> None:
    job_id = await submit(over_socket, model_id)
    succeed(database, job_id)
    events = await read_all(over_socket, job_id)
    assert [event["type"] for event in events] == ["job.created", "job.queued", "job.started", "job.succeeded"]
    assert [event["sequence"] for event in events] == [1, 2, 3, 4]
    assert {event["job"] for event in events} == {job_id}
    listed = (await over_socket.get(f"/v1/jobs/{job_id}/events")).json()
    assert listed["data"] == events
    assert not listed["has_more"]


async def test_a_stream_resumes_after_the_last_event_that_was_seen(
    over_socket: httpx.AsyncClient, model_id: str, database: Database
) -> None:
    job_id = await submit(over_socket, model_id)
    succeed(database, job_id)
    events = await read_all(over_socket, job_id)
    for seen in range(len(events)):
        assert await read_all(over_socket, job_id, **{"Last-Event-ID": events[seen]["id"]}) == events[seen + 1 :]
    assert await read_all(over_socket, job_id, **{"Last-Event-ID": "evt_unknown"}) == events


async def test_events_arrive_as_they_happen(over_socket: httpx.AsyncClient, model_id: str, database: Database) -> None:
    job_id = await submit(over_socket, model_id)
    job = start(database, job_id)
    async with over_socket.stream("GET", f"/v1/jobs/{job_id}/events", headers=STREAM) as response:
        stream = blocks(response)
        for kind in ("job.created", "job.queued", "job.started"):
            assert (await anext(stream))["event"] == kind
        for step in range(1, 4):
            event_id = await asyncio.to_thread(report_progress, database, job, step / 4)
            assert (await anext(stream))["id"] == event_id


async def test_a_quiet_stream_is_kept_alive_and_ends_when_the_job_is_deleted(
    over_socket: httpx.AsyncClient, model_id: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "HEARTBEAT_SECONDS", 0.0)
    job_id = await submit(over_socket, model_id)
    async with over_socket.stream("GET", f"/v1/jobs/{job_id}/events", headers=STREAM) as response:
        stream = blocks(response)
        seen = [await anext(stream) for _ in range(3)]
        assert seen[2] == {"": "ping"}
        await over_socket.post(f"/v1/jobs/{job_id}/cancel")
        await over_socket.delete(f"/v1/jobs/{job_id}")
        rest = [block async for block in stream]
        assert all(block == {"": "ping"} or block["event"] == "job.cancelled" for block in rest)


async def test_without_redis_the_stream_still_ends(
    over_socket: httpx.AsyncClient, model_id: str, database: Database
) -> None:
    job_id = await submit(over_socket, model_id)
    assert database.broker is not None
    silent = Database(database.url)
    reading = asyncio.create_task(read_all(over_socket, job_id))
    await asyncio.to_thread(succeed, silent, job_id)
    assert (await reading)[-1]["type"] == "job.succeeded"
    silent.close()


async def test_a_reader_who_leaves_is_forgotten(server_url: str, model_id: str, database: Database) -> None:
    async with httpx.AsyncClient(base_url=server_url, timeout=10) as client:
        job_id = await submit(client, model_id)
        for _ in range(5):
            async with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=STREAM) as response:
                assert (await anext(blocks(response)))["event"] == "job.created"
        # Streams left open would hold the server's shutdown up, and the fixture would fail.
        await asyncio.to_thread(succeed, database, job_id)


async def test_a_reader_who_takes_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "SLOW_READER_SECONDS", 0.05)
    closed = asyncio.Event()

    async def endless() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"data: x\n\n"
        finally:
            closed.set()

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    response = streaming.EventStream(endless())
    async with asyncio.timeout(5):
        await response({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
        await closed.wait()


async def test_the_list_is_paged_oldest_first(client: httpx.AsyncClient, model_id: str, database: Database) -> None:
    job_id = await submit(client, model_id)
    succeed(database, job_id)
    path = f"/v1/jobs/{job_id}/events"
    first = (await client.get(path, params={"limit": 3})).json()
    assert [event["sequence"] for event in first["data"]] == [1, 2, 3]
    assert first["has_more"]
    last = (await client.get(path, params={"limit": 3, "after": first["next"]})).json()
    assert [event["sequence"] for event in last["data"]] == [4]
    assert (last["has_more"], last["next"]) == (False, None)
    assert (await client.get(path, params={"after": "evt_unknown"})).status_code == 422


async def test_what_is_accepted_decides(client: httpx.AsyncClient, model_id: str) -> None:
    job_id = await submit(client, model_id)
    for accept, status in {"application/json": 200, "*/*": 200, "application/xml": 406, "text/html": 406}.items():
        response = await client.get(f"/v1/jobs/{job_id}/events", headers={"Accept": accept})
        assert response.status_code == status, accept
