"""What the operational endpoints answer."""

from typing import Literal

from pydantic import BaseModel


class Health(BaseModel):
    """The process lives."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether requests can be served, and which part is missing if not."""

    status: Literal["ready", "not_ready"]
    database: str
    broker: str
    storage: str


class Version(BaseModel):
    """What is running."""

    version: str
    api: Literal["v1"] = "v1"
