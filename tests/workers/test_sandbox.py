"""Attempts to get out of the sandbox, made by a real child through the real way of starting one."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from workers.child import Child, Ending, StopReason
from workers.hardware import describe_sandbox, is_confined
from workers.sandbox_profile import Profile

PROGRAM_PATH = str(Path(__file__).parent)
MEMORY = 2 << 30


@dataclass
class Ran:
    ending: Ending
    lines: list[str]

    @property
    def answer(self) -> str:
        return self.lines[-1] if self.lines else ""


class Attack:
    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    def start(self, name: str, *, cpu_seconds: int = 30, file_bytes: int = 1 << 30, **arguments: Any) -> Child:
        for folder in (self.scratch / "out", self.scratch / "tmp"):
            folder.mkdir(parents=True)
        (self.scratch / "request.json").write_text(json.dumps({"attack": name} | arguments))
        profile = Profile(
            parent=os.getpid(),
            scratch=str(self.scratch),
            memory_bytes=MEMORY,
            cpu_seconds=cpu_seconds,
            file_bytes=file_bytes,
            required=True,
            program="attacks",
            program_path=PROGRAM_PATH,
        )
        return Child(profile, threads=1, disk_bytes=1 << 30)

    def run(self, name: str, stop: Callable[[list[str]], StopReason | None] = lambda _: None, **arguments: Any) -> Ran:
        lines: list[str] = []
        child = self.start(name, **arguments)
        try:
            ending = child.run(lambda line: lines.append(line.decode()), lambda: stop(lines), 0.5)
        finally:
            child.close()
        assert not psutil.pid_exists(child.pid)
        return Ran(ending, lines)


@pytest.fixture
def attack(tmp_path: Path) -> Attack:
    return Attack(tmp_path / "scratch")


def test_both_kernel_layers_hold_on_this_machine() -> None:
    sandbox = describe_sandbox()
    assert is_confined(sandbox), sandbox


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/1/environ", "/tmp"])
def test_files_of_the_machine_cannot_be_read(attack: Attack, path: str) -> None:
    assert attack.run("read", path=path).answer.startswith("refused PermissionError")


def test_the_parents_environment_and_a_neighbours_folder_cannot_be_read(attack: Attack, tmp_path: Path) -> None:
    (tmp_path / "neighbour").write_text("secret")
    assert "refused PermissionError" in attack.run("read", path=str(tmp_path / "neighbour")).answer
    attack.scratch = tmp_path / "second"
    assert "refused PermissionError" in attack.run("read", path=f"/proc/{os.getpid()}/environ").answer


def test_folders_outside_cannot_be_listed(attack: Attack, tmp_path: Path) -> None:
    assert "refused PermissionError" in attack.run("list_folder", path=str(tmp_path)).answer


def test_nothing_can_be_written_outside(attack: Attack, tmp_path: Path) -> None:
    assert "refused PermissionError" in attack.run("write", path=str(tmp_path / "outside")).answer
    assert not (tmp_path / "outside").exists()


def test_its_own_folder_can_be_written(attack: Attack) -> None:
    assert attack.run("write", path="out/file").answer == "done written"
    assert (attack.scratch / "out" / "file").read_text() == "x"


@pytest.mark.parametrize(
    "name",
    ["fork", "execute", "run_program", "new_session", "survive_parent"],
)
def test_processes_cannot_be_started_and_the_leash_not_taken_off(attack: Attack, name: str) -> None:
    assert attack.run(name).answer.startswith("refused PermissionError")


def test_the_network_cannot_be_reached(attack: Attack) -> None:
    assert attack.run("connect", host="127.0.0.1", port=6379).answer.startswith("refused PermissionError")


def test_local_daemons_cannot_be_reached(attack: Attack, redis_socket: Path) -> None:
    assert attack.run("unix_connect", path=str(redis_socket)).answer.startswith("refused PermissionError")


def test_the_supervisor_cannot_be_signalled(attack: Attack) -> None:
    assert attack.run("kill", pid=os.getpid()).answer.startswith("refused PermissionError")


def test_limits_cannot_be_raised(attack: Attack) -> None:
    assert attack.run("raise_limit").answer.startswith("refused")


def test_links_cannot_be_made(attack: Attack, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    assert attack.run("symbolic_link", target="/etc/passwd").answer.startswith("refused")
    attack.scratch = tmp_path / "second"
    assert attack.run("hard_link", target=str(tmp_path / "secret")).answer.startswith("refused")


def test_threads_still_work(attack: Attack) -> None:
    assert attack.run("threads").answer == "done joined"


def test_the_environment_holds_nothing_of_the_supervisors(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSROOM_REDIS_URL", "redis://:password@host")
    names = json.loads(attack.run("environment").answer.removeprefix("done "))
    assert not [name for name in names if name.startswith("PRESSROOM")]
    assert {"HOME", "OMP_NUM_THREADS", "HF_HUB_OFFLINE"} <= set(names)


def test_a_file_over_the_limit_is_refused(attack: Attack) -> None:
    assert attack.run("big_file", size=2 << 30).answer == "refused OSError 27"


def test_many_files_over_the_limit_end_the_child(attack: Attack) -> None:
    assert attack.run("fill_disk", size=512 << 20).ending.stopped == "disk"


def test_memory_over_the_limit_is_refused(attack: Attack) -> None:
    assert attack.run("big_memory", size=MEMORY).answer.startswith("refused MemoryError")


def test_cpu_time_over_the_limit_ends_the_child(attack: Attack) -> None:
    assert attack.run("burn", cpu_seconds=1).ending.returncode == -signal.SIGXCPU


def test_a_gigabyte_of_output_is_harmless(attack: Attack) -> None:
    before = psutil.Process().memory_info().rss
    ran = attack.run("flood", size=1 << 30)
    assert ran.lines == ["done flooded"]
    assert psutil.Process().memory_info().rss - before < 64 << 20


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace(attack: Attack) -> None:
    started = time.monotonic()
    ran = attack.run("ignore_sigterm", lambda lines: "cancelled" if lines else None)
    assert (ran.ending.stopped, ran.ending.returncode) == ("cancelled", -signal.SIGKILL)
    assert time.monotonic() - started < 5.0


def test_a_lost_lease_kills_without_grace(attack: Attack) -> None:
    ran = attack.run("ignore_sigterm", lambda lines: "lost" if lines else None)
    assert ran.ending.returncode == -signal.SIGKILL


def test_the_libraries_of_the_engine_load_in_it(attack: Attack) -> None:
    assert attack.run("libraries").answer.startswith("done")


def test_a_child_dies_with_its_supervisor(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    supervisor = textwrap.dedent(f"""
        from pathlib import Path
        from tests.workers.test_sandbox import Attack
        child = Attack(Path({str(scratch)!r})).start("sleep")
        print(child.pid, flush=True)
        child.run(lambda line: print(line.decode(), flush=True), lambda: None, 1.0)
    """)
    with subprocess.Popen([sys.executable, "-c", supervisor], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        assert process.stdout.readline() == "sleeping\n"
        process.kill()
    child.wait(timeout=5.0)
