"""What the supervisor concludes from how a child died and from what it measured."""

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from workers import deaths
from workers.artifact_checks import check_format, check_something_compressed
from workers.child import Ending
from workers.compression.specs.errors import InvalidResult, NothingCompressed
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.metrics import JobMetrics
from workers.compression.specs.steps.prune_weights import MagnitudePrune
from workers.measuring import measuring_slot
from workers.sandbox import UNCONFINED_EXIT

SIDE: dict[str, Any] = {"size_bytes": 1000, "parameters": 100, "nonzero_parameters": 100, "bits_per_parameter": 32.0}


@pytest.mark.parametrize(
    ("returncode", "stderr", "cpu_seconds", "oom_killed", "code", "reason"),
    [
        (-signal.SIGKILL, "", 1.0, False, "worker_lost", "killed"),
        (-signal.SIGKILL, "", 1.0, True, "out_of_memory", "memory_limit"),
        (-signal.SIGKILL, "", 60.0, False, "timeout", "cpu_limit"),
        (-signal.SIGXCPU, "", 60.0, False, "timeout", "cpu_limit"),
        (-signal.SIGXFSZ, "", 1.0, False, "out_of_disk", "disk_limit"),
        (-signal.SIGSEGV, "", 1.0, False, "crashed", "worker_crashed"),
        (-signal.SIGABRT, "terminate: std::bad_alloc", 1.0, False, "out_of_memory", "memory_limit"),
        (-signal.SIGABRT, "assertion failed", 1.0, False, "crashed", "worker_crashed"),
        (-signal.SIGSYS, "", 1.0, False, "sandbox_violation", "system_call"),
        (1, "MemoryError", 1.0, False, "out_of_memory", "memory_limit"),
        (1, "OSError: [Errno 28] No space left on device", 1.0, False, "out_of_disk", "disk_limit"),
        (1, "KeyError: 'x'", 1.0, False, "crashed", "worker_crashed"),
        (UNCONFINED_EXIT, "", 0.0, False, "internal", "sandbox"),
    ],
)
def test_a_death_is_named_by_its_cause(
    returncode: int, stderr: str, cpu_seconds: float, oom_killed: bool, code: str, reason: str
) -> None:
    ending = Ending(returncode, None, stderr, cpu_seconds)
    failure = deaths.explain(ending, step="compress", cpu_limit=60, oom_killed=oom_killed)
    assert (failure.code, failure.reason, failure.step) == (code, reason, "compress")


def metrics(**after: Any) -> JobMetrics:
    return JobMetrics.model_validate({"original": SIDE, "compressed": SIDE | after, "ratios": {"size": 1.0}})


@pytest.mark.parametrize(
    "after", [{"size_bytes": 999}, {"bits_per_parameter": 8.0}, {"nonzero_parameters": 50, "size_bytes": 1001}]
)
def test_fewer_bytes_bits_or_nonzeros_are_a_compression(after: dict[str, Any]) -> None:
    check_something_compressed((MagnitudePrune(sparsity=0.5),), metrics(**after), ())


@pytest.mark.parametrize("after", [{}, {"size_bytes": 1001}])
def test_the_same_again_is_none(after: dict[str, Any]) -> None:
    with pytest.raises(NothingCompressed):
        check_something_compressed((MagnitudePrune(sparsity=0.5),), metrics(**after), ())


def test_an_artifact_has_to_be_what_it_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"\x80\x04pickle")
    with pytest.raises(InvalidResult):
        check_format(tmp_path / "model", ModelFormat.SAFETENSORS)


def test_only_one_measures_at_a_time_and_waiting_can_be_given_up(tmp_path: Path) -> None:
    waited = threading.Event()

    class GivenUp(Exception):
        pass

    def give_up() -> None:
        waited.set()
        raise GivenUp

    with measuring_slot(tmp_path, give_up), pytest.raises(GivenUp), measuring_slot(tmp_path, give_up):
        pass
    assert waited.is_set()
    with measuring_slot(tmp_path, give_up):
        pass
