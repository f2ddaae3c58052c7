"""One job at a time, through real children that behave as their model tells them to."""

import threading
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import undefer

from app.artifacts.records import ArtifactRecord, BlobRecord
from app.db import Database, DatabaseNow
from app.jobs import leases, repository
from app.jobs.records import EventRecord, JobRecord, LeaseRecord
from app.jobs.states import JobState
from app.models.records import ModelRecord
from tests.workers.conftest import with_settings
from tests.workers.submitter import Submitter
from workers.runner import run_next
from workers.workplace import Workplace

Changes = Callable[[str], Iterator[None]]


def find(database: Database, job: JobRecord) -> JobRecord:
    with database.reading() as session:
        return session.get_one(JobRecord, job.id, options=[undefer("*")])


def story(database: Database, job: JobRecord) -> list[str]:
    with database.reading() as session:
        events = repository.events_after(session, job.id, 0)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    return [event.type.removeprefix("job.") for event in events]


def told(database: Database, job: JobRecord) -> list[str]:
    return [line for line in story(database, job) if line != "progress"]


def artifacts(database: Database) -> list[ArtifactRecord]:
    with database.reading() as session:
        return list(session.scalars(select(ArtifactRecord).order_by(ArtifactRecord.id)))


def run(workplace: Workplace, job: JobRecord) -> JobRecord:
    claimed = run_next(workplace, job.capability)
    assert claimed is not None
    assert claimed.id == job.id
    assert list(workplace.settings.scratch_dir.iterdir()) == []
    return find(workplace.database, job)


@pytest.fixture
def running(workplace: Workplace, changes_of: Changes) -> Iterator[Callable[..., threading.Thread]]:
    """Runs a job in a thread, at this workplace or another, and returns once its child has reported something."""
    threads: list[threading.Thread] = []

    def start(job: JobRecord, at: Workplace = workplace) -> threading.Thread:
        changes = changes_of(job.id)
        next(changes)
        thread = threading.Thread(target=run_next, args=(at, job.capability))
        thread.start()
        threads.append(thread)
        for _ in changes:
            if "progress" in story(workplace.database, job):
                return thread
        raise AssertionError

    yield start
    workplace.stopping.set()
    for thread in threads:
        thread.join()


def test_a_compression_ends_with_its_artifacts_report_and_story(workplace: Workplace, submit: Submitter) -> None:
    job = run(workplace, submit.compression())
    assert (job.status, job.outcome, job.termination_reason) == (JobState.SUCCEEDED, "unconstrained", "completed")
    assert job.metrics is not None
    assert job.metrics["ratios"]["size"] == 2.5
    assert job.progress["fraction"] == 1.0
    assert "compress done" in job.log
    assert job.environment is not None
    assert job.environment["worker"] == "wrk_test"
    made = artifacts(workplace.database)
    assert [(artifact.kind, artifact.name) for artifact in made] == [
        ("model", "model.safetensors"),
        ("report", "report.json"),
        ("report", "report.md"),
        ("report", "report.html"),
    ]
    with workplace.database.reading() as session:
        for artifact in made:
            assert session.get_one(BlobRecord, artifact.sha256).references == 1
            assert len(workplace.storage.read(artifact.sha256)) == artifact.size_bytes
        assert list(session.scalars(select(LeaseRecord))) == []
    assert told(workplace.database, job) == ["created", "queued", "started", "succeeded"]


def test_nothing_waiting_is_no_error(workplace: Workplace) -> None:
    assert run_next(workplace, "cpu") is None


def test_a_doubled_hint_finds_nothing_left_to_do(workplace: Workplace, submit: Submitter) -> None:
    run(workplace, submit.compression())
    assert run_next(workplace, "cpu") is None
    assert len(artifacts(workplace.database)) == 4


@pytest.mark.parametrize(
    ("behaviour", "code", "reason"),
    [
        ({"compress": "segfault"}, "crashed", "worker_crashed"),
        ({"compare": "abort"}, "crashed", "worker_crashed"),
        ({"compress": "memory"}, "out_of_memory", "memory_limit"),
        ({"compress": "disk"}, "out_of_disk", "disk_limit"),
        ({"compress": "silent"}, "crashed", "worker_crashed"),
        ({"compress": "refuse"}, "invalid_model", "safetensors_invalid"),
        ({"compare": "nan"}, "invalid_result", "result_invalid"),
        ({"compress": "other_kind"}, "invalid_result", "result_invalid"),
        ({"compress": "outside"}, "invalid_result", "output_outside"),
        ({"compress": "not_a_model"}, "invalid_result", "format_refused"),
        ({"compare": "nothing"}, "nothing_compressed", None),
        ({"compress": "adapter_outside"}, "invalid_result", "output_outside"),
        ({"compress": "adapter_pickled"}, "invalid_result", "format_refused"),
    ],
    ids=lambda value: "-".join([*value, *value.values()]) if isinstance(value, dict) else None,
)
def test_a_bad_child_fails_the_job_once_with_the_right_code(
    workplace: Workplace, submit: Submitter, behaviour: dict[str, str], code: str, reason: str | None
) -> None:
    job = run(workplace, submit.compression(behaviour))
    assert job.status == JobState.FAILED
    assert job.error is not None
    assert (job.error["code"], job.error.get("reason")) == (code, reason)
    assert artifacts(workplace.database) == []


def test_a_probe_without_numbers_fails_the_job(workplace: Workplace, submit: Submitter) -> None:
    waiting = submit.compression({"probe": "nan"})
    with workplace.database.transaction() as session:
        # Only models that can be run are probed; the stand-in's own are bare tensors.
        session.execute(update(ModelRecord).where(ModelRecord.id == waiting.model_id).values(format="onnx"))
    job = run(workplace, waiting)
    assert job.status == JobState.FAILED
    assert job.error is not None
    assert (job.error["code"], job.error.get("reason"), job.error.get("step")) == (
        "invalid_result",
        "result_invalid",
        "probe-original",
    )
    assert artifacts(workplace.database) == []
    assert told(workplace.database, job) == ["created", "queued", "started", "failed"]
    assert str(workplace.settings.data_dir) not in f"{job.error}{job.log}"


def test_a_child_over_its_cpu_time_is_a_timeout(workplace: Workplace, submit: Submitter) -> None:
    job = run(workplace, submit.inspection({"inspect_model": "burn"}))
    assert job.error is not None
    assert (job.error["code"], job.error["reason"]) == ("timeout", "cpu_limit")


def test_a_job_over_its_time_limit_is_ended(workplace: Workplace, submit: Submitter) -> None:
    job = run(workplace, submit.compression({"compress": "hang"}, timeout_seconds=1.0))
    assert job.error is not None
    assert (job.status, job.error["code"]) == (JobState.FAILED, "timeout")


def test_progress_is_batched_and_never_moves_back(workplace: Workplace, submit: Submitter) -> None:
    job = run(workplace, submit.compression({"compress": "chatter"}))
    assert job.status == JobState.SUCCEEDED
    with workplace.database.reading() as session:
        events = repository.events_after(session, job.id, 0)
    fractions = [event.data["fraction"] for event in events if event.type == "job.progress"]
    assert fractions == sorted(fractions)
    assert len(fractions) < 40


def test_an_inspection_makes_the_model_ready_and_stores_its_clean_form(workplace: Workplace, submit: Submitter) -> None:
    job = run(workplace, submit.inspection())
    assert job.status == JobState.SUCCEEDED
    with workplace.database.reading() as session:
        model = session.get_one(ModelRecord, job.model_id)
        assert (model.status, model.format) == ("ready", "safetensors")
        assert model.clean_sha256 not in {None, model.sha256}
        assert session.get_one(BlobRecord, model.clean_sha256).references == 1


@pytest.mark.parametrize("behaviour", ["refuse", "segfault", "outside"])
def test_a_failed_inspection_rejects_the_model(workplace: Workplace, submit: Submitter, behaviour: str) -> None:
    job = run(workplace, submit.inspection({"inspect_model": behaviour}))
    assert job.status == JobState.FAILED
    with workplace.database.reading() as session:
        model = session.get(ModelRecord, job.model_id)
    assert model is None or model.status == "rejected"


def test_a_running_job_is_cancelled_within_seconds(
    workplace: Workplace, submit: Submitter, running: Callable[..., threading.Thread]
) -> None:
    job = submit.compression({"compress": "hang"})
    thread = running(job)
    with workplace.database.transaction() as session:
        repository.request_cancel(session, job)
    thread.join(timeout=5.0)
    assert not thread.is_alive()
    assert told(workplace.database, job) == ["created", "queued", "started", "cancelled"]
    assert find(workplace.database, job).termination_reason == "cancel_requested"


def test_a_stopping_worker_puts_its_job_back_without_using_up_an_attempt(
    workplace: Workplace, submit: Submitter, running: Callable[..., threading.Thread]
) -> None:
    job = submit.compression({"compress": "hang"}, max_attempts=1)
    thread = running(job)
    workplace.stopping.set()
    thread.join(timeout=5.0)
    assert not thread.is_alive()
    waiting = find(workplace.database, job)
    assert (waiting.status, waiting.attempt) == (JobState.QUEUED, 0)
    assert told(workplace.database, job) == ["created", "queued", "started", "requeued"]


def test_a_stopping_worker_claims_nothing_more(workplace: Workplace, submit: Submitter) -> None:
    job = submit.compression()
    workplace.stopping.set()
    assert run_next(workplace, "cpu") is None
    assert find(workplace.database, job).status == JobState.QUEUED


def test_a_worker_whose_lease_was_taken_kills_its_child_and_changes_nothing(
    workplace: Workplace, submit: Submitter, running: Callable[..., threading.Thread]
) -> None:
    job = submit.compression({"compress": "once"})
    thread = running(job)
    with workplace.database.transaction() as session:
        session.execute(update(LeaseRecord).values(lease_until=DatabaseNow() - 1.0))
        lease = session.scalars(select(LeaseRecord)).one()
        assert leases.take_over(session, lease, {}) is not None
    second = run_next(workplace, "cpu")
    assert second is not None
    thread.join(timeout=5.0)
    assert not thread.is_alive()
    ended = find(workplace.database, job)
    assert (ended.status, ended.attempt, ended.token) == (JobState.SUCCEEDED, 2, 2)
    assert len(artifacts(workplace.database)) == 4
    assert told(workplace.database, job) == ["created", "queued", "started", "requeued", "started", "succeeded"]


def test_a_database_that_hangs_cannot_keep_a_child_beyond_its_lease(
    workplace: Workplace, submit: Submitter, running: Callable[..., threading.Thread]
) -> None:
    brief = with_settings(workplace, lease_seconds=3.0)
    thread = running(submit.compression({"compress": "hang"}), brief)
    with workplace.database.transaction() as session:
        session.execute(select(1))  # Holds SQLite's only write lock: no heartbeat gets through.
        thread.join(timeout=brief.settings.lease_seconds + 2.0)
        assert not thread.is_alive()


def test_a_renewed_lease_outlives_its_first_length(workplace: Workplace, submit: Submitter) -> None:
    brief = with_settings(workplace, lease_seconds=1.0, heartbeat_seconds=0.2)
    job = run(brief, submit.compression({"compress": "hang"}, timeout_seconds=3.0))
    assert job.error is not None
    assert job.error["code"] == "timeout"


def test_a_fault_of_the_supervisor_fails_the_job_without_telling_its_inside(
    workplace: Workplace, submit: Submitter
) -> None:
    job = submit.compression()
    with workplace.database.transaction() as session:
        session.execute(update(JobRecord).values(spec={"broken": True}))
    ended = run(workplace, job)
    assert ended.error is not None
    assert ended.error["code"] == "internal"
    assert "broken" not in str(ended.error)


def test_a_missing_blob_is_tried_again_and_then_fails(workplace: Workplace, submit: Submitter) -> None:
    job = submit.compression(max_attempts=2)
    with workplace.database.reading() as session:
        workplace.storage.delete(session.get_one(ModelRecord, job.model_id).sha256)
    assert run(workplace, job).status == JobState.QUEUED
    ended = run(workplace, job)
    assert ended.error is not None
    assert (ended.status, ended.error["code"]) == (JobState.FAILED, "storage_unavailable")
    with workplace.database.reading() as session:
        types = list(session.scalars(select(EventRecord.type).order_by(EventRecord.sequence)))
    assert [kind.removeprefix("job.") for kind in types] == [
        "created",
        "queued",
        "started",
        "requeued",
        "started",
        "failed",
    ]
