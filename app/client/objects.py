"""What the service returns, as typed objects. Fields a newer service adds are kept and reachable as attributes."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict


class ApiObject(BaseModel):
    """Common to all: an identifier, and room for fields this client does not know yet."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    id: str


class Model(ApiObject):
    """An uploaded or promoted model."""

    status: str
    name: str
    format: str | None = None
    family: str | None = None
    sha256: str
    size_bytes: int
    parameters: int | None = None
    error: dict[str, Any] | None = None
    labels: dict[str, str] = {}
    created_at: datetime


class Dataset(ApiObject):
    """An uploaded dataset."""

    status: str
    name: str
    format: str | None = None
    sha256: str
    size_bytes: int
    error: dict[str, Any] | None = None
    labels: dict[str, str] = {}
    created_at: datetime


class Artifact(ApiObject):
    """A file that a job made."""

    job: str
    kind: str
    format: str
    name: str
    sha256: str
    size_bytes: int
    load: str = ""


class Progress(BaseModel):
    """How far a job is."""

    model_config = ConfigDict(extra="allow", frozen=True)

    fraction: float = 0.0
    step: str | None = None
    message: str | None = None
    eta_seconds: float | None = None


class Job(ApiObject):
    """A compression job."""

    status: str
    done: bool
    spec: dict[str, Any]
    progress: Progress = Progress()
    attempt: int = 0
    outcome: str | None = None
    termination_reason: str | None = None
    metrics: dict[str, Any] | None = None
    warnings: list[str] = []
    error: dict[str, Any] | None = None
    artifacts: list[Any] = []
    labels: dict[str, str] = {}
    created_at: datetime


class Event(ApiObject):
    """One line of a job's story."""

    type: str
    job: str
    sequence: int
    created_at: datetime
    data: dict[str, Any] = {}

    @property
    def terminal(self) -> bool:
        """Whether the job's story ends here."""
        return self.type in TERMINAL_EVENTS


TERMINAL_EVENTS = frozenset({"job.succeeded", "job.failed", "job.cancelled"})
