"""Workers come, are heard of, fall silent or say goodbye; targets are what those present can measure."""

from typing import Any

import httpx
from sqlalchemy import update

from app.config import Settings
from app.db import Database, DatabaseNow
from app.workers_registry import repository
from app.workers_registry.records import WorkerRecord
from tests.job_builders import add_worker


def register(database: Database, worker_id: str, **facts: Any) -> None:
    with database.transaction() as session:
        add_worker(session, worker_id, **facts)


def fall_silent(database: Database, worker_id: str, seconds: float) -> None:
    with database.transaction() as session:
        session.execute(
            update(WorkerRecord).where(WorkerRecord.id == worker_id).values(seen_at=DatabaseNow() - seconds)
        )


async def statuses(client: httpx.AsyncClient) -> dict[str, str]:
    page = (await client.get("/v1/workers")).json()
    return {worker["id"]: worker["status"] for worker in page["data"]}


async def test_a_worker_is_shown_as_it_registered(client: httpx.AsyncClient, database: Database) -> None:
    register(database, "wrk_1")
    [worker] = (await client.get("/v1/workers")).json()["data"]
    assert worker["object"] == "worker"
    assert (worker["hostname"], worker["pid"], worker["capability"]) == ("press-1", 4711, "cpu")
    assert worker["hardware"]["instruction_sets"] == ["avx2"]
    assert worker["running"] == []


async def test_silence_and_goodbye_are_told_apart(
    client: httpx.AsyncClient, database: Database, settings: Settings
) -> None:
    for worker_id in ("wrk_1", "wrk_2", "wrk_3"):
        register(database, worker_id)
    fall_silent(database, "wrk_1", 2 * settings.lease_seconds)
    with database.transaction() as session:
        repository.stopped(session, "wrk_2")
    assert await statuses(client) == {"wrk_3": "online", "wrk_2": "stopped", "wrk_1": "lost"}
    with database.transaction() as session:
        repository.seen(session, "wrk_1")
    assert (await statuses(client))["wrk_1"] == "online"


async def available(client: httpx.AsyncClient) -> dict[str, list[str]]:
    targets: list[dict[str, Any]] = (await client.get("/v1/targets")).json()["data"]
    assert all(target["available"] == bool(target["workers"]) for target in targets)
    return {target["hardware"]: target["workers"] for target in targets}


async def test_targets_are_available_where_a_worker_has_the_hardware(
    client: httpx.AsyncClient, database: Database, settings: Settings
) -> None:
    assert not any((await available(client)).values())
    register(database, "wrk_1", flags=("avx2", "avx512_vnni"))
    register(database, "wrk_2", flags=("avx2",))
    register(database, "wrk_3", flags=("avx2",), capability="inspect")
    assert await available(client) == {
        "auto": ["wrk_1", "wrk_2"],
        "cpu-avx2": ["wrk_1", "wrk_2"],
        "cpu-vnni": ["wrk_1"],
        "cpu-arm64": [],
    }
    fall_silent(database, "wrk_1", 2 * settings.lease_seconds)
    assert (await available(client))["cpu-vnni"] == []
