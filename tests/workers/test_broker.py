"""Hints and wake-ups over a real Redis, and what happens without one."""

import json
import time
from pathlib import Path

import pytest
import redis
from sqlalchemy.orm import Session

from app.broker import Broker, BrokerUnavailable
from app.db import Database
from app.jobs import outbox, repository
from app.jobs.records import JobRecord
from tests.builders import add_project


def new_job(session: Session) -> JobRecord:
    project_id = add_project(session).id
    return JobRecord(project_id=project_id, kind="compress", capability="cpu", spec={}, timeout_seconds=60.0)


def submit(database: Database) -> JobRecord:
    with database.transaction() as session:
        job = new_job(session)
        repository.create(session, job)
    return job


def unsent(database: Database) -> int:
    with database.reading() as session:
        return len(outbox.unsent(session, older_than_seconds=-1.0))


@pytest.fixture
def dead_broker(tmp_path: Path) -> Broker:
    return Broker(f"redis+socket://{tmp_path / 'nobody.sock'}")


def test_hints_wait_in_the_queue_of_their_capability(broker: Broker) -> None:
    assert broker.waiting("cpu") == 0
    broker.hint("cpu", "job_1")
    broker.hint("cpu", "job_2")
    broker.hint("inspect", "job_3")
    assert (broker.waiting("cpu"), broker.waiting("inspect"), broker.waiting("gpu")) == (2, 1, 0)


def test_a_hint_is_json_and_holds_nothing_but_the_id(broker: Broker, redis_socket: Path) -> None:
    broker.hint("cpu", "job_1")
    with redis.Redis(unix_socket_path=str(redis_socket)) as client:
        message = json.loads(client.lindex("cpu", 0) or b"")
    assert message["content-type"] == "application/json"
    assert broker.celery.conf.accept_content == ["json"]
    assert message["headers"]["argsrepr"] == "['job_1']"


def test_a_wake_up_reaches_whoever_listens(broker: Broker, redis_socket: Path) -> None:
    with redis.Redis(unix_socket_path=str(redis_socket)) as client, client.pubsub() as listener:
        listener.subscribe("pressroom:job_1")
        assert listener.get_message(timeout=5.0)["type"] == "subscribe"
        broker.wake("job_1")
        assert listener.get_message(timeout=5.0)["channel"] == b"pressroom:job_1"


def test_without_a_broker_everything_fails_fast_and_waking_is_silent(dead_broker: Broker) -> None:
    started = time.monotonic()
    for call in (lambda: dead_broker.hint("cpu", "job_1"), lambda: dead_broker.waiting("cpu"), dead_broker.ping):
        with pytest.raises(BrokerUnavailable):
            call()
    dead_broker.wake("job_1")
    assert time.monotonic() - started < 1.0


def test_a_job_is_accepted_without_a_broker_and_its_hint_is_kept(database: Database, dead_broker: Broker) -> None:
    offline = Database(database.url, dead_broker)
    job = submit(offline)
    offline.close()
    with database.reading() as session:
        assert [row.job_id for row in outbox.unsent(session, older_than_seconds=-1.0)] == [job.id]


def test_a_sent_hint_leaves_no_row_behind(database: Database, broker: Broker) -> None:
    submit(database)
    assert (broker.waiting("cpu"), unsent(database)) == (1, 0)


def test_a_rolled_back_job_sends_no_hint(database: Database, broker: Broker) -> None:
    def break_off() -> None:
        with database.transaction() as session:
            repository.create(session, new_job(session))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert (broker.waiting("cpu"), unsent(database)) == (0, 0)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host:6379/2", "redis://host:6379/2"),
        ("redis+socket:///run/redis.sock", "unix:///run/redis.sock?db=0"),
        ("redis+socket:///run/redis.sock?virtual_host=3", "unix:///run/redis.sock?db=3"),
        ("amqp://guest@host//", None),
    ],
)
def test_the_redis_url_for_subscribers_follows_from_the_broker_url(url: str, expected: str | None) -> None:
    assert Broker(url).redis_url == expected
