"""A worker process from its start to its end: registration, signs of life, stopping."""

import logging
import os
import socket
import threading

from sqlalchemy.exc import SQLAlchemyError

from app.broker import Broker
from app.config import Settings
from app.db import Database
from app.ids import new_id
from app.jobs.records import JobRecord
from app.storage import Storage
from app.workers_registry import repository
from workers.hardware import describe_hardware, describe_sandbox, installed_versions, is_confined
from workers.runner import run_next
from workers.workplace import Workplace

_log = logging.getLogger(__name__)


class SandboxMissing(Exception):
    """``PRESSROOM_SANDBOX_REQUIRED`` is set and a layer of the sandbox is missing on this machine."""


class Supervisor:
    """Runs jobs of one capability, as many at a time as the caller has threads.

    Args:
        broker: For hints of jobs that are put back and for wake-ups.

    Raises:
        SandboxMissing: see there.
    """

    def __init__(self, settings: Settings, broker: Broker, capability: str) -> None:
        self._capability = capability
        self._slots = threading.BoundedSemaphore(settings.worker_concurrency)
        sandbox = describe_sandbox()
        if not is_confined(sandbox):
            if settings.sandbox_required:
                raise SandboxMissing(f"The sandbox has holes on this machine: {sandbox}.")
            _log.warning("children are NOT fully confined on this machine: %s", sandbox)
        settings.scratch_dir.mkdir(parents=True, exist_ok=True)
        self.workplace = Workplace(
            settings=settings,
            database=Database(settings.sql_url, broker),
            storage=Storage(settings.blob_url, settings.storage_options, settings.scratch_dir),
            worker_id=new_id("wrk"),
            hardware=describe_hardware(),
            sandbox=sandbox,
        )
        self._life = threading.Thread(target=self._show_life, name="signs of life", daemon=True)
        self._looking = threading.Thread(target=self._look_for_work, name="looks for work", daemon=True)

    def start(self) -> None:
        """Enters the registry."""
        place = self.workplace
        with place.database.transaction() as session:
            repository.register(
                session,
                worker_id=place.worker_id,
                hostname=socket.gethostname(),
                pid=os.getpid(),
                capability=self._capability,
                concurrency=place.settings.worker_concurrency,
                hardware=place.hardware,
                sandbox=place.sandbox,
                versions=installed_versions(),
            )
        self._life.start()
        self._looking.start()

    def run_next(self) -> JobRecord | None:
        """Runs the best waiting job, if there is one, once a slot is free."""
        with self._slots:
            return run_next(self.workplace, self._capability)

    def stop(self) -> None:
        """Makes running jobs go back into their queue; returns at once."""
        self.workplace.stopping.set()

    def close(self) -> None:
        """Says goodbye, once no job runs any more."""
        self.stop()
        if self._looking.is_alive():
            self._looking.join()
        try:
            with self.workplace.database.transaction() as session:
                repository.stopped(session, self.workplace.worker_id)
        except SQLAlchemyError as error:
            _log.warning("could not say goodbye: %s", error)
        self.workplace.database.close()

    def _look_for_work(self) -> None:
        """Finds waiting jobs without a hint: a broker that is down, or deaf after a restart, delays them only."""
        place = self.workplace
        while not place.stopping.wait(place.settings.heartbeat_seconds):
            if not self._slots.acquire(blocking=False):
                continue
            try:
                while run_next(place, self._capability) is not None:
                    pass
            except (SQLAlchemyError, OSError) as error:
                _log.warning("could not look for work: %s", error)
            finally:
                self._slots.release()

    def _show_life(self) -> None:
        place = self.workplace
        while not place.stopping.wait(place.settings.heartbeat_seconds):
            try:
                with place.database.transaction() as session:
                    repository.seen(session, place.worker_id)
            except SQLAlchemyError as error:
                _log.warning("could not show a sign of life: %s", error)
