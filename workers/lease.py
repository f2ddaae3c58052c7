"""The hold on a running job: one thread that talks to the database, and a verdict that never waits for it.

The supervising thread asks for the verdict ten times a second and ends the child on anything but None. Because the
verdict looks at a monotonic clock, a database that hangs cannot keep a child alive beyond its lease.
"""

import logging
import threading
import time
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.config import Settings
from app.db import Database
from app.jobs import leases, repository
from app.jobs.fence import LeaseLost
from app.jobs.records import JobRecord
from workers.child import StopReason
from workers.story import Story

TICK_SECONDS = 0.25
FLUSH_SECONDS = 0.5
LOOK_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Lease:
    """Renews a claim, notices its loss and a wish to cancel, writes down progress.

    Args:
        claimed_at: ``time.monotonic()`` from before the claim: the lease cannot have begun later.
        stopping: Set when the whole worker has to stop.
    """

    def __init__(
        self, database: Database, job: JobRecord, settings: Settings, claimed_at: float, stopping: threading.Event
    ) -> None:
        self.story = Story()
        self._database = database
        self._job = job
        self._settings = settings
        self._stopping = stopping
        # Killing takes a moment too.
        self._margin = min(1.0, settings.lease_seconds / 5)
        self._safe_until = claimed_at + settings.lease_seconds - self._margin
        self._deadline = claimed_at + job.timeout_seconds
        self._verdict: StopReason | None = None
        self._renewed_at = claimed_at
        self._flushed_at = self._looked_at = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease {job.id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(TICK_SECONDS * 4)

    def verdict(self) -> StopReason | None:
        """Why the work has to stop now, None as long as it may go on."""
        if self._verdict is not None:
            return self._verdict
        now = time.monotonic()
        if now > self._safe_until:
            return "lost"
        if self._stopping.is_set():
            return "shutdown"
        return "timeout" if now > self._deadline else None

    def seconds_left(self) -> float:
        """Until the job's own time limit."""
        return max(0.0, self._deadline - time.monotonic())

    def _keep(self) -> None:
        while self._verdict is None and not self._done.wait(TICK_SECONDS):
            try:
                self._tick(time.monotonic())
            except LeaseLost:
                self._verdict = "lost"
            except SQLAlchemyError as error:
                # Nothing is decided here: the verdict turns to "lost" by itself before the lease ends.
                _log.warning("the database does not answer for %s: %s", self._job.id, error)

    def _tick(self, now: float) -> None:
        if now - self._renewed_at >= self._settings.heartbeat_seconds:
            with self._database.transaction() as session:
                self._judge(leases.renew(session, self._job.id, self._job.token, self._settings.lease_seconds))
            self._safe_until = now + self._settings.lease_seconds - self._margin
            self._renewed_at = self._looked_at = now
        elif now - self._looked_at >= LOOK_SECONDS:
            with self._database.reading() as session:
                self._judge(leases.standing(session, self._job.id, self._job.token))
            self._looked_at = now
        if now - self._flushed_at >= FLUSH_SECONDS:
            self._flush()
            self._flushed_at = now

    def _judge(self, hold: leases.Hold) -> None:
        if hold == "lost":
            self._verdict = "lost"
        elif hold == "cancelling":
            self._verdict = "cancelled"

    def _flush(self) -> None:
        if self._verdict is None:
            with self._database.transaction() as session:
                self.write_story(session)

    def write_story(self, session: Session, *, last: bool = False) -> None:
        """Writes what the children reported since the last time, fenced.

        Args:
            last: Whether nothing follows in this attempt.
        """
        chapter = self.story.take(last=last)
        if chapter is None:
            return
        changes = {"log": chapter.log, "progress": chapter.progress}
        changes = {column: value for column, value in changes.items() if value is not None}
        if not chapter.events:
            repository.note(session, self._job.id, self._job.token, **changes)
        for kind, data in chapter.events:
            repository.append_event(session, self._job, kind, data, self._job.token, **changes)
            changes = {}
