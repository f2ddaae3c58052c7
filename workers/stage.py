"""One child of a job: its folder, its limits, its result or its failure."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from app.jobs.records import JobRecord
from workers import deaths, outputs
from workers.child import PACKAGE_ROOT, Child, Ending
from workers.compression.specs.errors import EngineError, InvalidResult
from workers.compression.specs.messages import (
    OUTPUT_FOLDER,
    REQUEST_FILE,
    Checkpoint,
    Failure,
    Request,
    Result,
)
from workers.lease import Lease
from workers.sandbox_profile import Profile
from workers.workplace import Failed, Stopped, Workplace

Expected = TypeVar("Expected", bound=Result)

# Files of a job beside its largest one: the clean form, the artifact, what a technique spills.
_DISK_FACTOR = 2


@dataclass(frozen=True)
class Limits:
    """What one kind of child may use."""

    memory_bytes: int
    cpu_seconds: int


class Stages:
    """Runs the children of one job, one after the other.

    Args:
        folder: The job's scratch folder; each child gets one of its own below it.
    """

    def __init__(self, workplace: Workplace, lease: Lease, folder: Path, limits: Limits) -> None:
        self.workplace = workplace
        self.lease = lease
        self.folder = folder
        self._limits = limits

    def run(
        self,
        name: str,
        request: Request,
        expected: type[Expected],
        *,
        window: tuple[float, float],
        readable: tuple[Path, ...],
        on_checkpoint: Callable[[Checkpoint], None] | None = None,
    ) -> Expected:
        """Runs one request in a fresh sandboxed process.

        Args:
            name: Name of the stage, shown to the user where it fails.
            window: The part of the job's progress bar that it covers.
            readable: Files of the request.
            on_checkpoint: Takes what the child says about its checkpoints, in the thread that listens to it.

        Raises:
            Stopped: the supervisor had to end it.
            Failed: it failed, crashed or broke its contract.
        """
        self.check()
        folder = self.folder / name
        for made in (folder, folder / OUTPUT_FOLDER, folder / "tmp"):
            made.mkdir(mode=0o700)
        (folder / REQUEST_FILE).write_text(request.model_dump_json(), "utf-8")
        self.lease.story.enter(window, on_checkpoint)
        known_kills = deaths.oom_kills()
        ending = self._supervise(self._profile(folder, readable))
        self.lease.story.add_log(self._without_paths(ending.stderr))
        if ending.stopped == "disk":
            raise Failed(deaths.out_of_scratch(name))
        if ending.stopped is not None:
            raise Stopped(ending.stopped)
        return self._result(name, folder, ending, expected, oom_killed=deaths.oom_kills() > known_kills)

    def check(self) -> None:
        """Raises ``Stopped`` if the job must not go on; to be called between longer pieces of the parent's own work."""
        reason = self.lease.verdict()
        if reason is not None:
            raise Stopped(reason)

    def _supervise(self, profile: Profile) -> Ending:
        settings = self.workplace.settings
        child = Child(profile, threads=settings.child_threads, disk_bytes=_DISK_FACTOR * settings.child_file_bytes)
        try:
            return child.run(self.lease.story.hear, self.lease.verdict, settings.kill_grace_seconds)
        finally:
            child.close()

    def _profile(self, folder: Path, readable: tuple[Path, ...]) -> Profile:
        settings = self.workplace.settings
        return Profile(
            parent=os.getpid(),
            scratch=str(folder),
            readable=tuple(str(path) for path in readable),
            memory_bytes=self._limits.memory_bytes,
            cpu_seconds=self._limits.cpu_seconds,
            file_bytes=settings.child_file_bytes,
            required=settings.sandbox_required,
            program=self.workplace.program,
            program_path=self.workplace.program_path,
        )

    def _result(
        self, name: str, folder: Path, ending: Ending, expected: type[Expected], *, oom_killed: bool
    ) -> Expected:
        unexplained = deaths.explain(ending, step=name, cpu_limit=self._limits.cpu_seconds, oom_killed=oom_killed)
        if ending.returncode < 0:
            raise Failed(unexplained)
        try:
            outcome = outputs.read_outcome(folder)
        except outputs.NoResult:
            raise Failed(unexplained) from None
        except InvalidResult as error:
            raise Failed(failure_of(error, name)) from error
        if outcome.failure is not None:
            raise Failed(outcome.failure.model_copy(update={"step": outcome.failure.step or name}))
        if not isinstance(outcome.result, expected):
            raise Failed(failure_of(InvalidResult("The result is of another kind.", reason="result_invalid"), name))
        return outcome.result

    def _without_paths(self, text: str) -> str:
        """Users read the log; where this machine keeps its files is none of their business."""
        for path, shown in (
            (str(self.folder), "<job>"),
            (str(self.workplace.settings.data_dir.absolute()), "<data>"),
            (sys.prefix, "<python>"),
            (sys.base_prefix, "<python>"),
            (str(PACKAGE_ROOT), "<pressroom>"),
        ):
            text = text.replace(path, shown)
        return text


def failure_of(error: EngineError, step: str) -> Failure:
    """An engine error that was raised in the supervisor."""
    return Failure(
        code=error.code,
        detail=error.detail,
        reason=error.reason,
        hint=error.hint,
        step=error.step or step,
        retryable=error.retryable,
    )


@contextmanager
def scratch_folder(root: Path, job: JobRecord) -> Iterator[Path]:
    """A private folder for one attempt; gone afterwards, whatever is in it."""
    folder = root / f"{job.id}-{job.token}"
    folder.mkdir(mode=0o700, parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
