"""A worker in this process whose children run the stand-in instead of the engine."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from app.config import Settings
from app.db import Database
from app.storage import Storage
from tests.workers.submitter import PROGRAM_PATH, Submitter
from workers.workplace import Workplace


@pytest.fixture
def workplace(settings: Settings, database: Database, storage: Storage) -> Workplace:
    settings.scratch_dir.mkdir(exist_ok=True)
    quick = {"heartbeat_seconds": 0.5, "kill_grace_seconds": 0.5, "inspection_cpu_seconds": 1}
    return Workplace(
        settings=settings.model_copy(update=quick),
        database=database,
        storage=storage,
        worker_id="wrk_test",
        program="stand_in",
        program_path=PROGRAM_PATH,
    )


@pytest.fixture
def submit(workplace: Workplace, tmp_path: Path) -> Submitter:
    return Submitter(workplace.database, workplace.storage, tmp_path)


@pytest.fixture
def changes_of(redis_socket: Path) -> Iterator[Callable[[str], Iterator[None]]]:
    """Waits for wake-ups of a job, as a watcher does."""
    with redis.Redis(unix_socket_path=str(redis_socket)) as client, client.pubsub() as listener:

        def changes(job_id: str) -> Iterator[None]:
            listener.subscribe(f"pressroom:{job_id}")
            while True:
                listener.get_message(timeout=0.2)
                yield

        yield changes


def with_settings(workplace: Workplace, **changes: object) -> Workplace:
    return replace(workplace, settings=workplace.settings.model_copy(update=changes))
