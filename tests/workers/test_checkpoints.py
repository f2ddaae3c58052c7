"""A job that is cut off goes on where it stood; nothing that a child says about checkpoints does any harm."""

import hashlib
import threading
from pathlib import Path

from sqlalchemy import select

from app.artifacts.records import ArtifactRecord, BlobRecord
from app.db import Database
from app.jobs import repository
from app.jobs.records import CheckpointRecord
from app.jobs.states import JobState
from tests.workers.conftest import with_settings
from tests.workers.submitter import Submitter
from tests.workers.test_runner import Changes, find, run, story, told
from workers.runner import run_next
from workers.workplace import Workplace


def kept(database: Database) -> list[CheckpointRecord]:
    with database.reading() as session:
        return list(session.scalars(select(CheckpointRecord)))


def blob_of(database: Database, content: bytes) -> BlobRecord | None:
    with database.reading() as session:
        return session.get(BlobRecord, hashlib.sha256(content).hexdigest())


def test_a_killed_child_is_replaced_by_one_that_goes_on_from_its_last_checkpoint(
    workplace: Workplace, submit: Submitter
) -> None:
    waiting = run(workplace, submit.compression({"compress": "train_and_die"}))
    assert (waiting.status, waiting.attempt) == (JobState.QUEUED, 1)
    row = kept(workplace.database)[0]
    assert (row.step, row.update, row.finished) == ("recipe/0", 3, False)
    assert workplace.storage.read(row.sha256) == b"weights 3"
    ended = run(workplace, waiting)
    assert (ended.status, ended.attempt) == (JobState.SUCCEEDED, 2)
    assert "recipe/0 at 3: weights 3" in ended.log
    assert told(workplace.database, ended) == ["created", "queued", "started", "requeued", "started", "succeeded"]
    assert kept(workplace.database) == []
    blob = blob_of(workplace.database, b"weights 3")
    assert blob is None or blob.references == 0


def test_a_child_killed_in_the_last_attempt_fails_the_job_as_worker_lost(
    workplace: Workplace, submit: Submitter
) -> None:
    ended = run(workplace, submit.compression({"compress": "train_and_die"}, max_attempts=1))
    assert ended.error is not None
    assert (ended.status, ended.error["code"], ended.error["reason"]) == (JobState.FAILED, "worker_lost", "killed")
    assert kept(workplace.database) == []


def test_a_child_that_crashes_is_not_tried_again(workplace: Workplace, submit: Submitter) -> None:
    ended = run(workplace, submit.compression({"compress": "abort"}))
    assert (ended.status, ended.attempt) == (JobState.FAILED, 1)


def test_a_checkpoint_whose_bytes_are_gone_makes_its_step_start_over(workplace: Workplace, submit: Submitter) -> None:
    waiting = run(workplace, submit.compression({"compress": "train_and_die"}))
    workplace.storage.delete(kept(workplace.database)[0].sha256)
    ended = run(workplace, waiting)
    assert ended.status == JobState.SUCCEEDED
    assert "recipe/0 is gone, it starts over" in ended.log
    assert "weights" not in ended.log


def test_a_stopping_worker_leaves_the_checkpoint_to_the_next_one(
    workplace: Workplace, submit: Submitter, changes_of: Changes
) -> None:
    job = submit.compression({"compress": "train_and_hang"})
    changes = changes_of(job.id)
    next(changes)
    thread = threading.Thread(target=run_next, args=(workplace, "cpu"))
    thread.start()
    for _ in changes:
        if "progress" in story(workplace.database, job):
            break
    workplace.stopping.set()
    thread.join(timeout=10.0)
    assert not thread.is_alive()
    assert [(row.update, row.finished) for row in kept(workplace.database)] == [(2, True)]
    workplace.stopping.clear()
    ended = run(workplace, job)
    assert "recipe/0 at 2: weights 2" in ended.log
    # What was replaced goes at once, not when the collector comes.
    assert blob_of(workplace.database, b"weights 1") is None
    assert not workplace.storage.exists(hashlib.sha256(b"weights 1").hexdigest())


def test_whatever_a_child_names_as_its_checkpoint_only_its_own_plain_files_are_taken(
    workplace: Workplace, submit: Submitter
) -> None:
    often = with_settings(workplace, checkpoint_seconds=0.01)
    job = submit.compression({"compress": "hostile_checkpoints"})
    ended = run(often, job)
    assert ended.status == JobState.SUCCEEDED, ended.error
    assert 0 < ended.log.count("is not kept") <= 5
    with workplace.database.reading() as session:
        stored = set(session.scalars(select(BlobRecord.sha256)))
        named = set(session.scalars(select(ArtifactRecord.sha256)))
    assert len(stored - named) == 1, "only the model itself"
    assert Path("/etc/passwd").exists()


def test_files_beside_the_model_become_artifacts(workplace: Workplace, submit: Submitter) -> None:
    job = run(workplace, submit.compression({"compress": "good_and_more"}))
    assert job.status == JobState.SUCCEEDED, job.error
    with workplace.database.reading() as session:
        made = list(session.scalars(select(ArtifactRecord).order_by(ArtifactRecord.id)))
    assert [(artifact.kind, artifact.format, artifact.name, artifact.load) for artifact in made[1:2]] == [
        ("adapter", "safetensors", "adapter.safetensors", "open")
    ]
    assert [artifact.kind for artifact in made] == ["model", "adapter", "report", "report", "report"]


def test_a_cancelled_job_keeps_no_checkpoint(workplace: Workplace, submit: Submitter) -> None:
    job = run(workplace, submit.compression({"compress": "train_and_die"}))
    with workplace.database.transaction() as session:
        repository.request_cancel(session, job)
    assert find(workplace.database, job).status == JobState.CANCELLED
    assert kept(workplace.database) == []
    blob = blob_of(workplace.database, b"weights 3")
    assert blob is not None
    assert blob.references == 0
