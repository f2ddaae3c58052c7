"""Checkpoints of a running child: taken out of its reach while it works on, lent to the next attempt.

The child is not trusted: what it names is opened without following anything, copied while it is hashed, and only the
copy is stored. One thread does this, so that neither a large file nor a slow store keeps the supervisor from listening
to the child. A checkpoint that cannot be kept costs time if the worker is lost, never the job.
"""

import contextlib
import logging
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from app.artifacts.repository import discard_blob, store_file
from app.jobs import checkpoints
from app.jobs.fence import LeaseLost
from app.jobs.records import CheckpointRecord, JobRecord
from app.storage import BlobCorrupt
from workers import outputs
from workers.child import StopReason
from workers.compression.specs.errors import EngineError, StorageUnavailable
from workers.compression.specs.messages import Checkpoint
from workers.stage import Stages
from workers.workplace import Stopped

MAX_STEP_CHARACTERS = 100
MAX_WARNINGS = 5
MAX_LEFT_OVER = 1000
SPACING_SECONDS = 1.0
# Of the time, the thread copies and stores at most one part in so many and one.
REST_FACTOR = 4.0
FLUSH_SECONDS = 5.0
LOOK_SECONDS = 0.05
_POINTLESS: frozenset[StopReason | None] = frozenset({"lost", "cancelled", "timeout", "disk"})

_log = logging.getLogger(__name__)


class Keeper:
    """Keeps the latest checkpoint of each step of one child.

    Args:
        folder: The child's folder.
        steps: How many steps may have a checkpoint.
    """

    def __init__(self, stages: Stages, job: JobRecord, folder: Path, steps: int) -> None:
        self._stages = stages
        self._job = job
        self._folder = folder
        self._spool = stages.folder / "checkpoint"
        self._max_steps = steps
        self._spacing = min(SPACING_SECONDS, stages.workplace.settings.checkpoint_seconds / 2)
        self._changed = threading.Condition()
        self._waiting: dict[str, Checkpoint] = {}
        self._finished: dict[str, bool] = {}
        self._left_over: list[str] = []
        self._ending = False
        self._given_up = False
        self._rest_until = 0.0
        self._warnings = 0
        self._thread = threading.Thread(target=self._keep_all, name=f"checkpoints {job.id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits a moment for what the child said last, unless nobody wants it any more."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        until = time.monotonic() + FLUSH_SECONDS
        reason = error.reason if isinstance(error, Stopped) else None
        while self._thread.is_alive() and reason not in _POINTLESS and time.monotonic() < until:
            self._thread.join(LOOK_SECONDS)
            reason = self._stages.lease.verdict()
        self._given_up = True

    def offer(self, checkpoint: Checkpoint) -> None:
        """Takes note of a file that the child has written; returns at once."""
        step = checkpoint.step
        with self._changed:
            known = step in self._finished
            if self._finished.get(step) or (not known and len(self._finished) >= self._max_steps):
                return
            if not known and not 0 < len(step) <= MAX_STEP_CHARACTERS:
                return
            self._finished[step] = checkpoint.finished
            if (older := self._waiting.get(step)) is not None and len(self._left_over) < MAX_LEFT_OVER:
                self._left_over.append(older.path)
            self._waiting[step] = checkpoint
            self._changed.notify()

    def _keep_all(self) -> None:
        while (checkpoint := self._next()) is not None:
            started = time.monotonic()
            try:
                self._keep(checkpoint)
            except LeaseLost:
                return
            except (SQLAlchemyError, EngineError, OSError) as error:
                self._warn(checkpoint, error)
            finally:
                self._clear(checkpoint)
            now = time.monotonic()
            self._rest_until = now + max(self._spacing, REST_FACTOR * (now - started))

    def _next(self) -> Checkpoint | None:
        """Waits for the next one to keep; None once the child has ended and none is left."""
        with self._changed:
            while not self._given_up:
                due = self._ending or time.monotonic() >= self._rest_until
                for step, checkpoint in self._waiting.items():
                    if due or checkpoint.finished:
                        return self._waiting.pop(step)
                if self._ending:
                    return None
                # Woken by the next offer, or by the end of the rest if something waits for it.
                self._changed.wait(max(0.0, self._rest_until - time.monotonic()) if self._waiting else None)
        return None

    def _keep(self, checkpoint: Checkpoint) -> None:
        place = self._stages.workplace
        sha256, size_bytes = outputs.copy_made(
            self._folder, checkpoint.path, place.settings.child_file_bytes, self._spool, lambda: not self._given_up
        )
        store_file(place.database, place.storage, self._spool, sha256, move=True)
        made = CheckpointRecord(
            job_id=self._job.id,
            step=checkpoint.step,
            update=checkpoint.update,
            finished=checkpoint.finished,
            sha256=sha256,
            size_bytes=size_bytes,
        )
        with place.database.transaction() as session:
            kept = checkpoints.keep(session, self._job.id, self._job.token, made)
        unwanted = kept.replaced if kept.kept else sha256
        if unwanted is not None:
            # The collector comes after hours, in which a large model would fill the store with what nobody needs.
            discard_blob(place.database, place.storage, unwanted)

    def _clear(self, checkpoint: Checkpoint) -> None:
        """The child's own files go too: it does not need them again, and its folder may not grow for ever."""
        with self._changed:
            left_over, self._left_over = [checkpoint.path, *self._left_over], []
        for path in left_over:
            outputs.remove_made(self._folder, path)
        with contextlib.suppress(OSError):
            self._spool.unlink(missing_ok=True)

    def _warn(self, checkpoint: Checkpoint, error: Exception) -> None:
        _log.warning("a checkpoint of %s, %r, is not kept: %s", self._job.id, checkpoint.step, error)
        self._warnings += 1
        if self._warnings <= MAX_WARNINGS and not self._given_up:
            why = error.detail if isinstance(error, EngineError) else "The service could not store it."
            self._stages.lease.story.add_log(f"warning: a checkpoint of {checkpoint.step} is not kept. {why}")


def lend(stages: Stages, job: JobRecord, lent: ExitStack) -> tuple[Checkpoint, ...]:
    """What earlier attempts left, as readable files; a step whose file is gone starts over."""
    place = stages.workplace
    with place.database.reading() as session:
        rows = checkpoints.of_job(session, job.id)
    found = []
    for row in rows:
        try:
            path = lent.enter_context(place.storage.local(row.sha256))
        except (StorageUnavailable, BlobCorrupt) as error:
            if isinstance(error, StorageUnavailable) and error.reason != "blob_missing":
                raise
            with place.database.transaction() as session:
                checkpoints.forget(session, job.id, job.token, row.step)
            stages.lease.story.add_log(f"warning: the checkpoint of {row.step} is gone, it starts over.")
            continue
        found.append(Checkpoint(step=row.step, path=str(path), update=row.update, finished=row.finished))
        stages.lease.story.add_log(f"info: {row.step} goes on from its checkpoint at update {row.update}.")
    return tuple(found)
