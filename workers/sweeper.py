"""The sweeper: ``python -m workers.sweeper``. Repairs what crashes left behind; any number of them may run.

Every repair is a compare-and-set in the database, so two sweepers that see the same damage repair it once.
"""

import logging
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app import logs
from app.artifacts.repository import collect_blobs
from app.broker import Broker, BrokerUnavailable
from app.config import Settings, get_settings
from app.db import Database
from app.idempotency.repository import delete_old
from app.jobs import leases, outbox, repository
from app.problems import failure_body
from app.storage import Storage
from workers.compression.specs.errors import Code, EngineError
from workers.compression.specs.messages import Failure
from workers.inspect_job import reject_input

TIDY_SECONDS = 60.0
OUTBOX_SECONDS = 1.0
STALE_UPLOAD_SECONDS = 86_400.0

_log = logging.getLogger(__name__)

_WORKER_LOST = Failure(
    code=Code.WORKER_LOST,
    detail="The workers that ran the job were lost each time.",
    hint="Often the machine was out of memory. Submit the job again or use a larger worker.",
    retryable=True,
)
_WAITED_TOO_LONG = Failure(
    code=Code.TIMEOUT,
    reason="max_pending",
    detail="No worker took the job in time.",
    hint="Raise execution.max_pending_seconds, or start more workers.",
)


class Sweeper:
    """One round of repairs at a time."""

    def __init__(self, settings: Settings, database: Database, broker: Broker, storage: Storage) -> None:
        self._settings = settings
        self._database = database
        self._broker = broker
        self._storage = storage

    def sweep(self) -> None:
        """What cannot wait: expired leases, overdue jobs, hints that got lost."""
        for repair in (self.take_over_expired, self.fail_overdue, self.send_outbox, self.send_lost_hints):
            _attempt(repair)

    def tidy(self) -> None:
        """What can: unreferenced blobs, scratch of dead workers, old idempotency keys."""
        for repair in (self._collect_blobs, self._forget_keys, self.remove_stale_scratch):
            _attempt(repair)

    def take_over_expired(self) -> None:
        """Takes jobs from workers whose leases ran out."""
        with self._database.reading() as session:
            expired = leases.expired(session)
        for lease in expired:
            with self._database.transaction() as session:
                taken = leases.take_over(session, lease, failure_body(_WORKER_LOST))
                if taken is None:
                    continue
                outcome, job = taken
                if outcome == "failed" and job.kind not in repository.SHOWN:
                    reject_input(session, job, _WORKER_LOST)
            _log.warning("worker %s lost %s: %s", lease.worker_id, lease.job_id, outcome)

    def fail_overdue(self) -> None:
        """Fails jobs that waited longer than they were to."""
        with self._database.reading() as session:
            overdue = leases.overdue(session)
        for job in overdue:
            with self._database.transaction() as session:
                leases.fail_overdue(session, job, failure_body(_WAITED_TOO_LONG))

    def send_outbox(self) -> None:
        """Sends hints whose writer died, or could not reach the broker, between commit and send."""
        with self._database.reading() as session:
            rows = outbox.unsent(session, OUTBOX_SECONDS)
        sent = []
        try:
            for row in rows:
                self._broker.hint(row.capability, row.job_id)
                sent.append(row)
        finally:
            if sent:
                with self._database.transaction() as session:
                    outbox.forget(session, sent)

    def send_lost_hints(self) -> None:
        """Where more jobs can be claimed than hints wait, the broker lost some."""
        with self._database.reading() as session:
            claimable = leases.claimable(session)
        for capability, job_ids in claimable.items():
            for job_id in job_ids[self._broker.waiting(capability) :]:
                self._broker.hint(capability, job_id)

    def remove_stale_scratch(self) -> None:
        """Removes what killed workers and broken uploads left in the scratch folder."""
        root = self._settings.scratch_dir
        if not root.is_dir():
            return
        with self._database.reading() as session:
            in_use = leases.attempts_under_way(session)
        now = time.time()
        for path in root.iterdir():
            limit = self._settings.lease_seconds if path.name.startswith("job_") else STALE_UPLOAD_SECONDS
            if path.name not in in_use and now - path.stat().st_mtime > limit:
                _remove(path)

    def _collect_blobs(self) -> None:
        collect_blobs(self._database, self._storage, self._settings.blob_grace_seconds)

    def _forget_keys(self) -> None:
        delete_old(self._database, self._settings.idempotency_seconds)


def _attempt(repair: Callable[[], None]) -> None:
    """One repair that fails must not keep the others from being made; the next round tries it again."""
    try:
        repair()
    except (SQLAlchemyError, BrokerUnavailable, EngineError, OSError) as error:
        _log.warning("%s: %s", repair.__name__, error)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def main() -> None:
    """Sweeps until SIGTERM or SIGINT."""
    settings = get_settings()
    logs.configure(settings.log_format)
    stopping = threading.Event()

    def stop(*_: Any) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    broker = Broker(settings.broker_url)
    database = Database(settings.sql_url, broker)
    storage = Storage(settings.blob_url, settings.storage_options, settings.scratch_dir)
    sweeper = Sweeper(settings, database, broker, storage)
    tidied = 0.0
    while not stopping.wait(settings.sweep_seconds):
        sweeper.sweep()
        if time.monotonic() - tidied > TIDY_SECONDS:
            sweeper.tidy()
            tidied = time.monotonic()
    database.close()


if __name__ == "__main__":
    main()
