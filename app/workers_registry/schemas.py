"""HTTP bodies of workers and targets."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

WORKER_EXAMPLE: dict[str, Any] = {
    "id": "wrk_01KAT6R0Z2B4D6F8H0K2M4P6R8",
    "object": "worker",
    "status": "online",
    "hostname": "press-1",
    "pid": 4711,
    "capability": "cpu",
    "concurrency": 1,
    "hardware": {"cpu": "AMD EPYC 7B13", "instruction_sets": ["avx2", "f16c"], "cores": 2},
    "sandbox": {"landlock": True, "seccomp": True},
    "versions": {"onnxruntime": "1.32.0"},
    "running": ["job_01KAT6WP2A4B6C8D0E2F4G6H8J"],
    "started_at": "2026-11-24T09:00:00Z",
    "seen_at": "2026-11-24T09:30:00Z",
    "stopped_at": None,
}


class WorkerRead(BaseModel):
    """A worker process that is or was there."""

    model_config = ConfigDict(json_schema_extra={"examples": [WORKER_EXAMPLE]})

    id: str
    object: Literal["worker"] = "worker"
    status: Literal["online", "stopped", "lost"]
    hostname: str
    pid: int
    capability: str
    concurrency: int
    hardware: dict[str, JsonValue]
    sandbox: dict[str, JsonValue]
    versions: dict[str, str]
    running: list[str] = Field(description="Jobs of this project that it runs at the moment.")
    started_at: datetime
    seen_at: datetime
    stopped_at: datetime | None


class TargetRead(BaseModel):
    """A kind of hardware that artifacts can be made for and measured on."""

    object: Literal["target"] = "target"
    hardware: str
    summary: str
    runtimes: list[str]
    available: bool = Field(description="Whether a worker is online that has it, so that it can be measured.")
    workers: list[str]
    price_per_hour: float
