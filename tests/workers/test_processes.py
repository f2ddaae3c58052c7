"""The worker and sweeper as processes: what they import, how they start and stop."""

import subprocess
import sys

import pytest

from app.broker import Broker
from app.config import Settings
from app.db import Database
from app.workers_registry.records import WorkerRecord
from workers import supervisor
from workers.hardware import describe_hardware
from workers.supervisor import SandboxMissing, Supervisor

HEAVY = ("torch", "onnx", "onnxruntime", "numpy", "sklearn", "scipy", "transformers", "pyarrow")


@pytest.mark.parametrize("module", ["workers.tasks", "workers.sweeper"])
def test_a_supervising_process_imports_no_heavy_library(module: str) -> None:
    program = f"import sys, {module}; print(sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_worker_enters_the_registry_and_says_goodbye(settings: Settings, database: Database, broker: Broker) -> None:
    worker = Supervisor(settings, broker, "cpu")
    worker.start()
    with database.reading() as session:
        entry = session.get_one(WorkerRecord, worker.workplace.worker_id)
        assert (entry.capability, entry.concurrency, entry.stopped_at) == ("cpu", 1, None)
        assert entry.hardware["cores"] >= 1
        assert entry.sandbox["seccomp"] is True
        assert "pressroom" in entry.versions
    worker.close()
    with database.reading() as session:
        assert session.get_one(WorkerRecord, worker.workplace.worker_id).stopped_at is not None


def test_a_worker_that_needs_the_sandbox_refuses_to_start_without_it(
    settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "describe_sandbox", lambda: {"landlock": 0, "seccomp": True})
    with pytest.raises(SandboxMissing):
        Supervisor(settings.model_copy(update={"sandbox_required": True}), broker, "cpu")
    Supervisor(settings, broker, "cpu").workplace.database.close()


def test_hardware_names_the_instruction_sets_that_decide_about_kernels() -> None:
    hardware = describe_hardware()
    assert isinstance(hardware["instruction_sets"], list)
    assert hardware["memory_bytes"]
