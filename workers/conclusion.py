"""How a job ends: everything that is written in its last, fenced transaction."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from app.jobs.records import JobRecord
from app.jobs.states import JobState
from app.problems import failure_body
from workers.compression.specs.messages import Failure

Write = Callable[[Session, JobRecord], None]


def _nothing(session: Session, job: JobRecord) -> None:
    """For jobs that leave no rows besides their own."""


@dataclass(frozen=True)
class Conclusion:
    """A terminal state, the columns that go with it, and the rows that appear with it.

    Args:
        write: Adds rows (artifacts, the inspected input's new state) within the fenced transaction.
    """

    state: JobState
    changes: dict[str, Any] = field(default_factory=dict)
    write: Write = _nothing


def failed(failure: Failure, write: Write = _nothing) -> Conclusion:
    """The job failed."""
    return Conclusion(JobState.FAILED, {"termination_reason": "error", "error": failure_body(failure)}, write)


def cancelled() -> Conclusion:
    """Somebody asked for it."""
    return Conclusion(JobState.CANCELLED, {"termination_reason": "cancel_requested"})
