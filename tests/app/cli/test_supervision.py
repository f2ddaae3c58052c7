import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from app.cli.supervision import Part, Supervisor, describe_exit

SLEEPER = (sys.executable, "-c", "import time; time.sleep(60)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)",
)
# Starts one part, tells its process id, then waits to be killed.
SUPERVISING = f"""
import os, sys, time
from app.cli.supervision import Part, Supervisor
supervisor = Supervisor(os.environ, print)
supervisor.start(Part("sleeper", {SLEEPER!r}))
print(supervisor.process_ids()["sleeper"], flush=True)
time.sleep(60)
"""


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def supervisor(lines: list[str]) -> Iterator[Supervisor]:
    supervisor = Supervisor(os.environ, lines.append)
    yield supervisor
    supervisor.stop(grace_seconds=5.0)


def test_a_part_that_is_killed_is_reported_and_started_again(supervisor: Supervisor, lines: list[str]) -> None:
    supervisor.start(Part("worker", SLEEPER))
    first = supervisor.process_ids()["worker"]
    os.kill(first, signal.SIGKILL)

    def restarted() -> bool:
        supervisor.keep()
        return supervisor.process_ids()["worker"] != first

    assert eventually(restarted)
    assert lines == ["worker was ended by SIGKILL; starting it again in 0.5 s"]
    assert supervisor.exit_status("worker") is None


def test_a_part_that_keeps_dying_is_started_ever_less_often(lines: list[str]) -> None:
    now = 0.0
    supervisor = Supervisor(os.environ, lines.append, clock=lambda: now)
    supervisor.start(Part("worker", (sys.executable, "-c", "raise SystemExit(3)")))
    for _ in range(4):
        assert eventually(lambda: supervisor.exit_status("worker") == 3)
        supervisor.keep()
        now += 15.0
        supervisor.keep()
    assert [line.rsplit(" in ", 1)[1] for line in lines] == ["0.5 s", "1 s", "2 s", "4 s"]
    supervisor.stop(grace_seconds=5.0)


def test_stopping_kills_what_does_not_listen() -> None:
    supervisor = Supervisor(os.environ, print)
    supervisor.start(Part("deaf", STUBBORN))
    pid = supervisor.process_ids()["deaf"]
    assert eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_SLEEPING)
    supervisor.stop(grace_seconds=0.3)
    assert is_gone(pid)


def test_the_broker_is_stopped_after_the_parts_that_speak_to_it(tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    program = (
        "import signal, sys, time, pathlib\n"
        "def end(*_):\n"
        f"    with open({str(ends)!r}, 'a') as file: file.write(sys.argv[1] + '\\n')\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        f"pathlib.Path({str(tmp_path)!r}, sys.argv[1] + '.up').touch()\n"
        "time.sleep(60)"
    )
    supervisor = Supervisor(os.environ, print)
    for name, order in (("redis", 1), ("worker", 0)):
        supervisor.start(Part(name, (sys.executable, "-c", program, name), stop_order=order))
    assert eventually(lambda: len(list(tmp_path.glob("*.up"))) == 2)
    supervisor.stop(grace_seconds=5.0)
    assert ends.read_text().split() == ["worker", "redis"]


def test_parts_die_with_a_supervisor_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", SUPERVISING], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        part = int(process.stdout.readline())
        assert not is_gone(part)
        process.kill()
    assert eventually(lambda: is_gone(part))


def test_exits_are_told_in_words() -> None:
    assert describe_exit(3) == "ended with exit code 3"
    assert describe_exit(-signal.SIGSEGV) == "was ended by SIGSEGV"
