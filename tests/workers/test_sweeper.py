"""Repairs of what crashes leave behind."""

import os
from pathlib import Path

import pytest
import redis
from sqlalchemy import select, update

from app.broker import Broker
from app.db import Database, DatabaseNow
from app.jobs import leases, repository
from app.jobs.records import JobRecord, LeaseRecord, OutboxRecord
from app.jobs.states import JobState
from app.models.records import ModelRecord
from tests.workers.submitter import Submitter
from workers import sweeper as sweeping
from workers.sweeper import Sweeper
from workers.workplace import Workplace


@pytest.fixture
def sweeper(workplace: Workplace, broker: Broker) -> Sweeper:
    return Sweeper(workplace.settings, workplace.database, broker, workplace.storage)


def claim_and_lose(database: Database, capability: str = "cpu") -> JobRecord:
    with database.transaction() as session:
        job = leases.claim(session, capability, "wrk_dead", 60.0)
        assert job is not None
        session.flush()
        session.execute(update(LeaseRecord).values(lease_until=DatabaseNow() - 1.0))
    return job


def status_of(database: Database, job: JobRecord) -> str:
    with database.reading() as session:
        return session.get_one(JobRecord, job.id).status


def test_a_job_of_a_lost_worker_waits_again_and_is_hinted(
    sweeper: Sweeper, database: Database, submit: Submitter, broker: Broker, redis_socket: Path
) -> None:
    job = submit.compression()
    claim_and_lose(database)
    with redis.Redis(unix_socket_path=str(redis_socket)) as client:
        client.flushall()
    sweeper.sweep()
    assert status_of(database, job) == JobState.QUEUED
    assert broker.waiting("cpu") == 1


def test_a_lost_inspection_rejects_its_model_after_the_last_attempt(
    sweeper: Sweeper, database: Database, submit: Submitter
) -> None:
    job = submit.inspection()
    for _ in range(3):
        claim_and_lose(database, "inspect")
        sweeper.sweep()
    assert status_of(database, job) == JobState.FAILED
    with database.reading() as session:
        model = session.get(ModelRecord, job.model_id)
    assert model is None or model.status == "rejected"


def test_hints_that_redis_lost_are_sent_again_and_not_more(
    sweeper: Sweeper, submit: Submitter, broker: Broker, redis_socket: Path
) -> None:
    for _ in range(3):
        submit.compression()
    assert broker.waiting("cpu") == 3
    with redis.Redis(unix_socket_path=str(redis_socket)) as client:
        client.flushall()
    for _ in range(3):
        sweeper.sweep()
        assert broker.waiting("cpu") == 3


def test_an_outbox_row_left_by_a_crash_is_sent_once(
    sweeper: Sweeper,
    database: Database,
    submit: Submitter,
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweeping, "OUTBOX_SECONDS", -1.0)
    job = submit.compression()
    with database.transaction() as session:
        session.add(OutboxRecord(job_id=job.id, capability="gpu"))
    for _ in range(2):
        sweeper.send_outbox()
    assert broker.waiting("gpu") == 1
    with database.reading() as session:
        assert list(session.scalars(select(OutboxRecord))) == []


def test_without_a_broker_the_rows_stay_and_other_repairs_go_on(
    workplace: Workplace, submit: Submitter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "OUTBOX_SECONDS", -1.0)
    dead = Broker(f"redis+socket://{tmp_path / 'nobody.sock'}")
    database = Database(workplace.database.url, dead)
    sweeper = Sweeper(workplace.settings, database, dead, workplace.storage)
    job = submit.compression()
    claim_and_lose(database)
    sweeper.sweep()
    assert status_of(database, job) == JobState.QUEUED
    with database.reading() as session:
        assert [row.job_id for row in session.scalars(select(OutboxRecord))] == [job.id]
    database.close()


def test_a_job_that_waited_too_long_fails_as_a_timeout(sweeper: Sweeper, database: Database, submit: Submitter) -> None:
    job = submit.compression(pending_deadline=DatabaseNow() - 1.0)
    sweeper.sweep()
    with database.reading() as session:
        failed = session.get_one(JobRecord, job.id)
        assert failed.error is not None
        assert (failed.status, failed.error["code"], failed.error["reason"]) == ("failed", "timeout", "max_pending")
        assert [event.type for event in repository.events_after(session, job.id, 2)] == ["job.failed"]


def test_scratch_of_dead_attempts_goes_and_of_running_ones_stays(
    sweeper: Sweeper, workplace: Workplace, database: Database, submit: Submitter
) -> None:
    submit.compression()
    with database.transaction() as session:
        running = leases.claim(session, "cpu", "wrk_alive", 60.0)
        assert running is not None
    scratch = workplace.settings.scratch_dir
    kept, dead, upload = scratch / f"{running.id}-1", scratch / "job_dead-1", scratch / "upload-1"
    for folder in (kept, dead):
        (folder / "out").mkdir(parents=True)
        os.utime(folder, (0, 0))
    upload.touch()
    sweeper.tidy()
    assert sorted(scratch.iterdir()) == sorted([kept, upload])
    os.utime(upload, (0, 0))
    sweeper.tidy()
    assert list(scratch.iterdir()) == [kept]
