"""The rows of checkpoints and the blobs that they hold, on SQLite and on PostgreSQL."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.artifacts.records import BlobRecord
from app.artifacts.repository import reserve_blob
from app.db import Database
from app.jobs import checkpoints, leases, repository
from app.jobs.checkpoints import Kept
from app.jobs.fence import LeaseLost
from app.jobs.records import CheckpointRecord, JobRecord
from app.jobs.states import JobState
from tests.workers.test_leases import FAILURE, expire, must_claim, queue, take_over

FIRST, SECOND, THIRD = ("1" * 64, "2" * 64, "3" * 64)


def keep(
    database: Database, job: JobRecord, sha256: str, update: int, *, finished: bool = False, step: str = "recipe/0"
) -> Kept:
    with database.transaction() as session:
        reserve_blob(session, sha256, 10)
    made = CheckpointRecord(job_id=job.id, step=step, update=update, finished=finished, sha256=sha256, size_bytes=10)
    with database.transaction() as session:
        return checkpoints.keep(session, job.id, job.token, made)


def rows(database: Database, job: JobRecord) -> list[tuple[str, int, bool, str]]:
    with database.reading() as session:
        return [(row.step, row.update, row.finished, row.sha256) for row in checkpoints.of_job(session, job.id)]


def references(database: Database) -> dict[str, int]:
    with database.reading() as session:
        return {blob.sha256: blob.references for blob in session.scalars(select(BlobRecord))}


def running(database: Database, **columns: int) -> JobRecord:
    queue(database, **columns)
    return must_claim(database)


def test_a_newer_checkpoint_takes_the_place_of_the_older_one(any_database: Database) -> None:
    job = running(any_database)
    assert keep(any_database, job, FIRST, 1) == Kept(kept=True)
    assert keep(any_database, job, SECOND, 2) == Kept(kept=True, replaced=FIRST)
    assert keep(any_database, job, THIRD, 7, step="recipe/1") == Kept(kept=True)
    assert rows(any_database, job) == [("recipe/0", 2, False, SECOND), ("recipe/1", 7, False, THIRD)]
    assert references(any_database) == {FIRST: 0, SECOND: 1, THIRD: 1}


def test_an_older_checkpoint_changes_nothing_unless_it_is_the_end(any_database: Database) -> None:
    job = running(any_database)
    keep(any_database, job, FIRST, 5)
    for update in (4, 5):
        assert keep(any_database, job, SECOND, update) == Kept(kept=False)
    assert keep(any_database, job, SECOND, 3, finished=True) == Kept(kept=True, replaced=FIRST)
    assert keep(any_database, job, THIRD, 9) == Kept(kept=False)
    assert rows(any_database, job) == [("recipe/0", 3, True, SECOND)]
    assert references(any_database) == {FIRST: 0, SECOND: 1, THIRD: 0}


def test_the_same_bytes_again_are_held_once(any_database: Database) -> None:
    job = running(any_database)
    keep(any_database, job, FIRST, 1)
    assert keep(any_database, job, FIRST, 2) == Kept(kept=True)
    assert references(any_database) == {FIRST: 1}


def test_a_worker_that_lost_its_lease_keeps_nothing(any_database: Database) -> None:
    old = running(any_database)
    keep(any_database, old, FIRST, 1)
    assert take_over(any_database, expire(any_database, old)) == "requeued"
    for _ in range(2):
        with pytest.raises(LeaseLost):
            keep(any_database, old, SECOND, 2)
        with pytest.raises(LeaseLost), any_database.transaction() as session:
            checkpoints.forget(session, old.id, old.token, "recipe/0")
        with any_database.transaction() as session:
            leases.claim(session, "cpu", "wrk_new", 60.0)
    assert rows(any_database, old) == [("recipe/0", 1, False, FIRST)]
    assert references(any_database) == {FIRST: 1, SECOND: 0}


def test_a_checkpoint_that_cannot_be_read_gives_way_to_any_other(any_database: Database) -> None:
    job = running(any_database)
    keep(any_database, job, FIRST, 5)
    keep(any_database, job, SECOND, 5, step="recipe/1")
    with any_database.transaction() as session:
        checkpoints.forget(session, job.id, job.token, "recipe/0")
    assert references(any_database) == {FIRST: 0, SECOND: 1}
    assert keep(any_database, job, THIRD, 1).kept
    assert len(rows(any_database, job)) == 2


def finish(database: Database, job: JobRecord, state: JobState) -> None:
    with database.transaction() as session:
        leases.finish(session, job.id, job.token, state)


def cancel_while_queued(database: Database, job: JobRecord) -> None:
    with database.transaction() as session:
        leases.requeue(session, job.id, job.token, "worker_stopped", refund=True)
        repository.request_cancel(session, job)


def fail_while_queued(database: Database, job: JobRecord) -> None:
    with database.transaction() as session:
        leases.requeue(session, job.id, job.token, "worker_stopped", refund=True)
        assert leases.fail_overdue(session, job, FAILURE) is not None


def lose_the_last_worker(database: Database, job: JobRecord) -> None:
    assert take_over(database, expire(database, job)) == "failed"


def lose_a_cancelling_worker(database: Database, job: JobRecord) -> None:
    with database.transaction() as session:
        repository.request_cancel(session, job)
    assert take_over(database, expire(database, job)) == "cancelled"


@pytest.mark.parametrize(
    "end",
    [
        lambda database, job: finish(database, job, JobState.SUCCEEDED),
        lambda database, job: finish(database, job, JobState.FAILED),
        lambda database, job: finish(database, job, JobState.CANCELLED),
        cancel_while_queued,
        fail_while_queued,
        lose_the_last_worker,
        lose_a_cancelling_worker,
    ],
    ids=["succeeded", "failed", "cancelled", "queued-cancelled", "queued-failed", "lost-failed", "lost-cancelled"],
)
def test_a_job_that_ends_lets_go_of_its_checkpoints(
    any_database: Database, end: Callable[[Database, JobRecord], None]
) -> None:
    job = running(any_database, max_attempts=1)
    keep(any_database, job, FIRST, 1)
    keep(any_database, job, SECOND, 1, step="recipe/1")
    end(any_database, job)
    assert rows(any_database, job) == []
    assert references(any_database) == {FIRST: 0, SECOND: 0}


def test_a_job_that_waits_again_keeps_its_checkpoints(any_database: Database) -> None:
    job = running(any_database)
    keep(any_database, job, FIRST, 1)
    assert take_over(any_database, expire(any_database, job)) == "requeued"
    assert rows(any_database, must_claim(any_database)) == [("recipe/0", 1, False, FIRST)]
    assert references(any_database) == {FIRST: 1}


def test_an_end_that_is_rolled_back_takes_no_checkpoint_along(any_database: Database) -> None:
    job = running(any_database)
    keep(any_database, job, FIRST, 1)

    def end_in_vain(session: Session) -> None:
        leases.finish(session, job.id, job.token, JobState.SUCCEEDED)
        raise KeyError

    with pytest.raises(KeyError), any_database.transaction() as session:
        end_in_vain(session)
    assert rows(any_database, job) == [("recipe/0", 1, False, FIRST)]


def test_a_checkpoint_kept_while_its_job_ends_leaves_nothing_behind(any_database: Database) -> None:
    jobs = [running(any_database) for _ in range(8)]

    def race(number: int) -> None:
        job = jobs[number // 2]
        if number % 2:
            finish(any_database, job, JobState.SUCCEEDED)
            return
        try:
            keep(any_database, job, f"{number:064d}", 1)
        except LeaseLost:
            return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(race, range(16)))
    assert [rows(any_database, job) for job in jobs] == [[]] * 8
    assert set(references(any_database).values()) == {0}
