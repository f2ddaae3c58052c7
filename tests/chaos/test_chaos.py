"""Whatever dies, a job ends exactly once, with one set of artifacts and a story without gaps."""

import signal
import time
from pathlib import Path

import psutil
import pytest

from app.jobs import repository
from app.jobs.states import JobState
from tests.chaos.cluster import Cluster, eventually
from tests.chaos.digits import submit_digits

pytestmark = pytest.mark.chaos


def test_a_child_killed_in_every_attempt_fails_its_job_alone(cluster: Cluster) -> None:
    worker = cluster.start_worker()
    job = cluster.submit(compress="hang")
    for attempt in (1, 2, 3):
        eventually(lambda wanted=attempt: cluster.find(job).attempt == wanted, f"attempt {attempt} starts")
        cluster.child(worker, job).kill()
    ended = cluster.ended(job)
    assert ended.error is not None
    assert (ended.status, ended.error["code"], ended.error["reason"]) == ("failed", "worker_lost", "killed")
    assert cluster.told(job) == ["created", "queued", *["started", "requeued"] * 2, "started", "failed"]
    assert cluster.artifacts(job) == 0
    cluster.assert_succeeded_once(cluster.submit())


def test_a_killed_worker_takes_its_child_along_and_another_one_ends_the_job(any_cluster: Cluster) -> None:
    cluster = any_cluster
    cluster.start_sweeper()
    worker = cluster.start_worker()
    job = cluster.submit(compare="once")
    child = cluster.child(worker, job)
    worker.kill()
    child.wait(timeout=5.0)
    cluster.start_worker()
    cluster.assert_succeeded_once(job)
    assert cluster.told(job) == ["created", "queued", "started", "requeued", "started", "succeeded"]
    assert cluster.find(job).attempt == 2


def test_what_a_killed_worker_left_as_a_checkpoint_another_one_goes_on_from(any_cluster: Cluster) -> None:
    cluster = any_cluster
    cluster.start_sweeper()
    worker = cluster.start_worker()
    job = cluster.submit(compress="train_and_hang")
    eventually(lambda: [kept.update for kept in cluster.checkpoints(job)] == [2], "the last checkpoint is kept")
    worker.kill()
    cluster.start_worker()
    cluster.assert_succeeded_once(job)
    assert "recipe/0 at 2: weights 2" in cluster.find(job).log
    assert cluster.find(job).attempt == 2


def test_a_child_killed_again_and_again_goes_on_each_time(cluster: Cluster) -> None:
    worker = cluster.start_worker()
    job = cluster.submit(compress="train_on_and_on")
    for update in (1, 2):
        eventually(
            lambda wanted=update: [kept.update for kept in cluster.checkpoints(job)] == [wanted], f"update {update}"
        )
        cluster.child(worker, job).kill()
    cluster.assert_succeeded_once(job)
    assert cluster.told(job) == ["created", "queued", *["started", "requeued"] * 2, "started", "succeeded"]
    assert "trained 3 updates" in cluster.find(job).log


def test_a_redis_that_died_with_its_data_loses_no_job(cluster: Cluster) -> None:
    waiting = cluster.submit()
    cluster.kill_redis()
    unheard = cluster.submit()
    cluster.start_redis()
    assert cluster.broker.waiting("cpu") == 0
    cluster.start_sweeper()
    cluster.start_worker()
    cluster.assert_succeeded_once(waiting)
    cluster.assert_succeeded_once(unheard)


def test_a_worker_works_on_while_redis_is_dead_and_after_its_return(cluster: Cluster) -> None:
    cluster.start_sweeper()
    worker = cluster.start_worker()
    job = cluster.submit()
    cluster.child(worker, job)
    cluster.kill_redis()
    cluster.assert_succeeded_once(job)
    cluster.assert_succeeded_once(cluster.submit())
    cluster.start_redis()
    cluster.assert_succeeded_once(cluster.submit())
    assert worker.poll() is None


def test_a_message_delivered_many_times_runs_its_job_once(cluster: Cluster) -> None:
    job = cluster.submit()
    for _ in range(3):
        cluster.broker.hint("cpu", job.id)
    cluster.start_worker()
    cluster.start_worker()
    cluster.assert_succeeded_once(job)
    eventually(lambda: cluster.broker.waiting("cpu") == 0, "all messages are taken")
    assert cluster.told(job) == ["created", "queued", "started", "succeeded"]
    assert cluster.artifacts(job) == 4


def test_a_worker_that_wakes_up_after_its_lease_ran_out_changes_nothing(cluster: Cluster) -> None:
    cluster.start_sweeper()
    old = cluster.start_worker()
    job = cluster.submit(compress="once")
    child = cluster.child(old, job)
    old.send_signal(signal.SIGSTOP)
    cluster.start_worker()
    cluster.assert_succeeded_once(job)
    before = cluster.find(job)
    old.send_signal(signal.SIGCONT)
    child.wait(timeout=10.0)
    old.send_signal(signal.SIGTERM)
    old.wait(timeout=10.0)
    after = cluster.find(job)
    assert (after.status, after.token, after.last_sequence) == (before.status, before.token, before.last_sequence)
    assert (after.attempt, after.metrics) == (2, before.metrics)
    cluster.assert_succeeded_once(job)


def test_a_terminated_worker_puts_its_job_back_and_leaves_in_time(cluster: Cluster) -> None:
    worker = cluster.start_worker()
    job = cluster.submit(compress="once")
    child = cluster.child(worker, job)
    started = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=10.0) == 0
    assert time.monotonic() - started < 10.0
    assert not psutil.pid_exists(child.pid)
    waiting = cluster.find(job)
    assert (waiting.status, waiting.attempt) == (JobState.QUEUED, 0)
    cluster.start_worker()
    cluster.assert_succeeded_once(job)
    assert cluster.find(job).attempt == 1


def test_a_cancelled_job_stops_within_seconds_and_the_worker_goes_on(cluster: Cluster) -> None:
    worker = cluster.start_worker()
    running, queued = cluster.submit(compress="hang"), cluster.submit()
    child = cluster.child(worker, running)
    started = time.monotonic()
    with cluster.database.transaction() as session:
        for job in (running, queued):
            repository.request_cancel(session, job)
    child.wait(timeout=5.0)
    assert cluster.ended(running).status == JobState.CANCELLED
    assert time.monotonic() - started < 5.0
    assert cluster.told(queued) == ["created", "queued", "cancelled"]
    assert cluster.told(running) == ["created", "queued", "started", "cancelled"]
    assert cluster.artifacts(running) == 0
    cluster.assert_succeeded_once(cluster.submit())


def test_the_real_engine_survives_the_death_of_its_worker(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_sweeper()
    worker = cluster.start_real_worker()
    job = submit_digits(cluster, tmp_path)
    cluster.child(worker, job)
    worker.kill()
    cluster.start_real_worker()
    cluster.assert_succeeded_once(job)
    metrics = cluster.find(job).metrics
    assert metrics is not None
    assert metrics["ratios"]["size"] > 3.0
    assert metrics["original"]["accuracy"] - metrics["compressed"]["accuracy"] < 0.02
