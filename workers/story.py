"""What a job's children report, gathered until the next write to the database."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from workers.compression.specs.messages import (
    Checkpoint,
    CheckpointWritten,
    Event,
    Log,
    MetricReported,
    Progress,
    StepCompleted,
)
from workers.thinning import Thinned

LOG_CHARACTERS = 64 << 10
MAX_WAITING = 200
MAX_STEPS = 200

_event: TypeAdapter[Event] = TypeAdapter(Event)


@dataclass(frozen=True)
class Chapter:
    """What came in since the last one.

    Args:
        events: Type and data, in order; at most one of them is ``job.progress``.
        progress: The job's progress, None if it has not moved.
        log: The whole log so far, None if nothing was added.
    """

    events: list[tuple[str, dict[str, Any]]]
    progress: dict[str, Any] | None
    log: str | None


def _ignore(checkpoint: Checkpoint) -> None:
    """Of a child that has nothing to go on from."""


class Story:
    """Takes events in the thread that listens, gives them out in the one that writes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._progress: dict[str, Any] | None = None
        self._fraction = 0.0
        self._log = ""
        self._log_grew = False
        self._window = (0.0, 1.0)
        self._steps = 0
        self._metrics = Thinned()
        self._on_checkpoint: Callable[[Checkpoint], None] = _ignore

    def enter(self, window: tuple[float, float], on_checkpoint: Callable[[Checkpoint], None] | None = None) -> None:
        """The next child covers this part of the whole job; its checkpoints go to ``on_checkpoint``, at once."""
        self._window = window
        self._on_checkpoint = on_checkpoint or _ignore

    def hear(self, line: bytes) -> None:
        """Takes a line of a child's standard output; what is no event is dropped."""
        try:
            event = _event.validate_json(line)
        except ValidationError:
            return
        if b"\\u0000" in line:
            return
        if isinstance(event, CheckpointWritten):
            self._on_checkpoint(event.checkpoint)
            return
        with self._lock:
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, Progress):
            low, high = self._window
            # A child's bar may jump back; the job's does not.
            self._fraction = max(self._fraction, round(low + (high - low) * event.fraction, 4))
            data = event.model_dump(mode="json", include={"step", "message", "eta_seconds"})
            self._progress = {"fraction": self._fraction, **data}
        elif isinstance(event, Log):
            self._write(f"{event.level}: {event.message}")
        elif isinstance(event, StepCompleted):
            self._steps += 1
            if self._steps <= MAX_STEPS:
                self._events.append(("job.step_completed", event.outcome.model_dump(mode="json")))
        elif isinstance(event, MetricReported):
            data = event.model_dump(mode="json", exclude={"type"})
            if self._metrics.passes(event.name, data, room=len(self._events) < MAX_WAITING):
                self._events.append(("job.metric", data))

    def add_log(self, text: str) -> None:
        """Adds lines to the log, such as a child's standard error."""
        if text.strip():
            with self._lock:
                self._write(text.rstrip())

    def _write(self, text: str) -> None:
        self._log = (self._log + text + "\n")[-LOG_CHARACTERS:]
        self._log_grew = True

    @property
    def log(self) -> str:
        """The log so far."""
        with self._lock:
            return self._log

    def take(self, *, last: bool = False) -> Chapter | None:
        """What came in since the last call, None if nothing did.

        Args:
            last: Whether nothing follows: the last value of every metric is told then.
        """
        with self._lock:
            if last:
                self._events += [("job.metric", data) for data in self._metrics.rest()]
            events, progress, log = self._events, self._progress, self._log if self._log_grew else None
            self._events, self._progress, self._log_grew = [], None, False
        if progress is not None:
            events = [*events, ("job.progress", progress)]
        return Chapter(events, progress, log) if events or log is not None else None
