"""Claims, leases, fences and takeovers, on SQLite and on PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select, update

from app.db import Database, DatabaseNow
from app.jobs import leases, repository
from app.jobs.records import EventRecord, JobRecord, LeaseRecord
from app.jobs.states import TRANSITIONS, JobState
from tests.builders import add_project

FAILURE: dict[str, Any] = {"code": "worker_lost"}


def queue(database: Database, **columns: Any) -> JobRecord:
    fields = {"kind": "compress", "capability": "cpu", "spec": {}, "timeout_seconds": 60.0} | columns
    with database.transaction() as session:
        job = JobRecord(project_id=add_project(session).id, **fields)
        repository.create(session, job)
    return job


def claim(database: Database, worker: str = "wrk_a", seconds: float = 60.0) -> JobRecord | None:
    with database.transaction() as session:
        return leases.claim(session, "cpu", worker, seconds)


def must_claim(database: Database, worker: str = "wrk_a", seconds: float = 60.0) -> JobRecord:
    job = claim(database, worker, seconds)
    assert job is not None
    return job


def expire(database: Database, job: JobRecord) -> LeaseRecord:
    with database.transaction() as session:
        session.execute(update(LeaseRecord).where(LeaseRecord.job_id == job.id).values(lease_until=DatabaseNow() - 1.0))
    with database.reading() as session:
        return next(lease for lease in leases.expired(session) if lease.job_id == job.id)


def take_over(database: Database, lease: LeaseRecord) -> str | None:
    with database.transaction() as session:
        taken = leases.take_over(session, lease, FAILURE)
        return taken[0] if taken else None


def find(database: Database, job: JobRecord) -> JobRecord:
    with database.reading() as session:
        found = repository.find(session, job.id)
    assert found is not None
    return found


def story(database: Database, job: JobRecord) -> list[str]:
    with database.reading() as session:
        events = repository.events_after(session, job.id, 0)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    return [event.type.removeprefix("job.") for event in events]


def test_the_highest_priority_and_then_the_oldest_job_is_claimed_first(any_database: Database) -> None:
    low, old, young, high = (queue(any_database, priority=priority) for priority in (-1, 0, 0, 1))
    assert [must_claim(any_database).id for _ in range(4)] == [high.id, old.id, young.id, low.id]
    assert claim(any_database) is None


def test_a_job_of_another_capability_or_not_yet_admitted_is_not_claimed(any_database: Database) -> None:
    queue(any_database, capability="gpu")
    waiting = queue(any_database, admitted=False)
    assert claim(any_database) is None
    with any_database.transaction() as session:
        assert repository.admit(session, waiting)
        assert not repository.admit(session, waiting)
    assert must_claim(any_database).id == waiting.id


def test_many_workers_at_once_claim_each_job_exactly_once(any_database: Database) -> None:
    jobs = {queue(any_database).id for _ in range(12)}
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda number: claim(any_database, f"wrk_{number}"), range(20)))
    ids = [job.id for job in claimed if job is not None]
    assert sorted(ids) == sorted(jobs)


def test_events_written_at_once_get_gapless_numbers(any_database: Database) -> None:
    queue(any_database)
    job = must_claim(any_database)

    def write(number: int) -> None:
        with any_database.transaction() as session:
            repository.append_event(session, job, "job.metric", {"number": number}, job.token)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(24)))
    assert story(any_database, job) == ["created", "queued", "started", *["metric"] * 24]


def test_a_lease_is_renewed_only_while_it_stands_and_only_by_its_token(any_database: Database) -> None:
    queue(any_database)
    job = must_claim(any_database)
    with any_database.transaction() as session:
        assert leases.renew(session, job.id, job.token, 60.0) == "held"
        assert leases.renew(session, job.id, job.token + 1, 60.0) == "lost"
    expire(any_database, job)
    with any_database.transaction() as session:
        assert leases.renew(session, job.id, job.token, 60.0) == "lost"


def test_a_worker_that_lost_its_lease_can_change_nothing(any_database: Database) -> None:
    queue(any_database)
    old = must_claim(any_database, "wrk_old")
    assert take_over(any_database, expire(any_database, old)) == "requeued"
    new = must_claim(any_database, "wrk_new")
    assert (new.id, new.token, new.attempt) == (old.id, old.token + 1, 2)
    for write in (
        lambda session: leases.finish(session, old.id, old.token, JobState.SUCCEEDED),
        lambda session: leases.requeue(session, old.id, old.token, "late", refund=True),
        lambda session: repository.append_event(session, old, "job.progress", {}, old.token),
        lambda session: repository.note(session, old.id, old.token, log="late"),
    ):
        with pytest.raises(repository.LeaseLost), any_database.transaction() as session:
            write(session)
    assert find(any_database, old).status == JobState.RUNNING
    with any_database.transaction() as session:
        leases.finish(session, new.id, new.token, JobState.SUCCEEDED)
    assert story(any_database, old) == ["created", "queued", "started", "requeued", "started", "succeeded"]


def test_rows_written_with_a_lost_lease_vanish_with_its_transaction(any_database: Database) -> None:
    queue(any_database)
    job = must_claim(any_database)

    def finish_late() -> None:
        with any_database.transaction() as session:
            session.add(EventRecord(job_id=job.id, sequence=99, type="job.metric", data={}))
            leases.finish(session, job.id, job.token + 1, JobState.SUCCEEDED)

    with pytest.raises(repository.LeaseLost):
        finish_late()
    assert story(any_database, job) == ["created", "queued", "started"]


def test_two_sweepers_take_over_once(any_database: Database) -> None:
    queue(any_database)
    lease = expire(any_database, must_claim(any_database))
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: take_over(any_database, lease), range(4)))
    assert sorted(outcomes, key=str) == [None, None, None, "requeued"]


def test_a_standing_lease_is_not_taken_over(any_database: Database) -> None:
    queue(any_database)
    job = must_claim(any_database)
    lease = expire(any_database, job)
    with any_database.transaction() as session:
        session.execute(update(LeaseRecord).values(lease_until=DatabaseNow() + 60.0))
    assert take_over(any_database, lease) is None
    assert find(any_database, job).status == JobState.RUNNING


def test_after_the_last_attempt_the_job_fails(any_database: Database) -> None:
    queue(any_database, max_attempts=2)
    for outcome in ("requeued", "failed"):
        assert take_over(any_database, expire(any_database, must_claim(any_database))) == outcome
    assert claim(any_database) is None
    with any_database.reading() as session:
        job = session.scalars(select(JobRecord)).one()
        assert list(session.scalars(select(LeaseRecord))) == []
    assert (job.status, job.termination_reason, job.error) == (JobState.FAILED, "worker_lost", FAILURE)


def test_a_cancelling_job_whose_worker_is_lost_is_cancelled(any_database: Database) -> None:
    queue(any_database)
    job = must_claim(any_database)
    with any_database.transaction() as session:
        assert repository.request_cancel(session, job).status == JobState.CANCELLING
        assert leases.renew(session, job.id, job.token, 60.0) == "cancelling"
    assert take_over(any_database, expire(any_database, job)) == "cancelled"
    assert story(any_database, job) == ["created", "queued", "started", "cancelled"]


def test_cancelling_twice_says_the_same_and_a_finished_job_stays_as_it_is(any_database: Database) -> None:
    job = queue(any_database)
    with any_database.transaction() as session:
        assert repository.request_cancel(session, job).status == JobState.CANCELLED
        assert repository.request_cancel(session, job).status == JobState.CANCELLED
    assert story(any_database, job) == ["created", "queued", "cancelled"]
    queue(any_database)
    running = must_claim(any_database)
    with any_database.transaction() as session:
        leases.finish(session, running.id, running.token, JobState.SUCCEEDED)
        assert repository.request_cancel(session, running).status == JobState.SUCCEEDED


def test_a_worker_that_stops_gives_its_attempt_back(any_database: Database) -> None:
    queue(any_database, max_attempts=1)
    for _ in range(3):
        job = must_claim(any_database)
        assert job.attempt == 1
        with any_database.transaction() as session:
            leases.requeue(session, job.id, job.token, "worker_stopped", refund=True)
    waiting = find(any_database, job)
    assert (waiting.status, waiting.attempt, waiting.started_at) == (JobState.QUEUED, 0, None)


def test_a_job_that_waits_too_long_fails_and_cannot_be_claimed(any_database: Database) -> None:
    job = queue(any_database, pending_deadline=DatabaseNow() - 1.0)
    assert claim(any_database) is None
    with any_database.transaction() as session:
        assert [late.id for late in leases.overdue(session)] == [job.id]
        assert leases.claimable(session) == {}
        assert leases.fail_overdue(session, job, {"code": "timeout"}) is not None
        assert leases.fail_overdue(session, job, {"code": "timeout"}) is None
    assert find(any_database, job).status == JobState.FAILED


def test_the_time_to_wait_ends_with_the_first_claim(any_database: Database) -> None:
    queue(any_database, pending_deadline=DatabaseNow() + 60.0)
    job = must_claim(any_database)
    assert job.pending_deadline is None


@pytest.mark.parametrize("wanted", list(JobState))
@pytest.mark.parametrize("current", list(JobState))
def test_only_moves_of_the_table_are_made(database: Database, current: JobState, wanted: JobState) -> None:
    job = queue(database)
    with database.transaction() as session:
        session.execute(update(JobRecord).values(status=current))
        moved = repository.move(session, job.id, wanted)
    assert (moved is not None) == (wanted in TRANSITIONS[current])
    assert find(database, job).status == (wanted if moved else current)


def test_a_finished_job_is_deleted_with_its_events_and_a_running_one_is_not(any_database: Database) -> None:
    queue(any_database)
    job = must_claim(any_database)
    with any_database.transaction() as session:
        assert not repository.delete_finished(session, job)
        leases.finish(session, job.id, job.token, JobState.SUCCEEDED)
        assert repository.delete_finished(session, job)
    with any_database.reading() as session:
        assert list(session.scalars(select(EventRecord))) == []
