"""What a worker process holds for its whole life, and what a stopped piece of work says."""

import threading
from dataclasses import dataclass, field

from pydantic import JsonValue

from app.config import Settings
from app.db import Database
from app.storage import Storage
from workers.child import StopReason
from workers.compression.specs.messages import Failure


@dataclass(frozen=True)
class Workplace:
    """Settings, connections and the wish to stop, shared by all jobs of one worker."""

    settings: Settings
    database: Database
    storage: Storage
    worker_id: str
    hardware: dict[str, JsonValue] = field(default_factory=dict)
    sandbox: dict[str, JsonValue] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event)
    program: str = "workers.compression"
    """The module that children run; another one in tests of the sandbox's surroundings."""
    program_path: str | None = None

    def facts(self) -> dict[str, JsonValue]:
        """What a report says about where it was made."""
        return {"worker": self.worker_id, "hardware": self.hardware, "sandbox": self.sandbox}


class Stopped(Exception):
    """The supervisor ended the work: cancelled, timeout, shutdown or a lost lease."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


class Failed(Exception):
    """The work ended with a failure that goes onto the job."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure
