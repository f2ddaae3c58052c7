"""Keeps a fixed set of processes running until told to stop, and leaves none behind."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 15.0
STEADY_SECONDS = 30.0
POLL_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1

# Loaded before any fork: between fork and exec a child should do as little as it can.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Part:
    """A process to keep running.

    Args:
        name: What messages call it.
        command: Program and arguments, no shell.
        stop_order: Parts with a smaller number are stopped first; equals are stopped together.
    """

    name: str
    command: tuple[str, ...]
    stop_order: int = 0


@dataclass
class _Running:
    part: Part
    process: subprocess.Popen[bytes]
    started_at: float
    delay: float = FIRST_DELAY_SECONDS
    restart_at: float | None = None


@dataclass
class Supervisor:
    """Starts parts, restarts the ones that die, stops them all.

    Each part leads a session of its own, so that a Ctrl-C in the terminal reaches only the supervisor, which then
    stops the parts in their order; and each part is killed by the kernel should the supervisor itself be killed.

    Args:
        environment: Environment of every part.
        report: Takes one line about each death and restart.
        clock: Seconds that only grow.
    """

    environment: Mapping[str, str]
    report: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _running: list[_Running] = field(default_factory=list)

    def start(self, part: Part) -> None:
        """Starts a part and keeps it from now on."""
        self._running.append(_Running(part, self._spawn(part), self.clock()))

    def exit_status(self, name: str) -> int | None:
        """How the part's current process ended; None while it runs."""
        return next(entry.process.poll() for entry in self._running if entry.part.name == name)

    def process_ids(self) -> dict[str, int]:
        """The current process of each part."""
        return {entry.part.name: entry.process.pid for entry in self._running}

    def keep(self) -> None:
        """One look at every part: reports the dead, restarts those whose waiting time is over."""
        for entry in self._running:
            status = entry.process.poll()
            if status is None:
                continue
            now = self.clock()
            if entry.restart_at is None:
                if now - entry.started_at > STEADY_SECONDS:
                    entry.delay = FIRST_DELAY_SECONDS
                entry.restart_at = now + entry.delay
                self.report(f"{entry.part.name} {describe_exit(status)}; starting it again in {entry.delay:g} s")
                entry.delay = min(entry.delay * 2, LONGEST_DELAY_SECONDS)
            elif now >= entry.restart_at:
                entry.process = self._spawn(entry.part)
                entry.started_at, entry.restart_at = now, None

    def stop(self, grace_seconds: float) -> None:
        """Ends every part: SIGTERM in stop order, SIGKILL to what is left of it after ``grace_seconds`` each."""
        for order in sorted({entry.part.stop_order for entry in self._running}):
            group = [entry.process for entry in self._running if entry.part.stop_order == order]
            for process in group:
                _signal_session(process, signal.SIGTERM)
            _wait(group, self.clock() + grace_seconds, self.clock)
            for process in group:
                _signal_session(process, signal.SIGKILL)
                process.wait()
        self._running.clear()

    def _spawn(self, part: Part) -> subprocess.Popen[bytes]:
        supervisor = os.getpid()

        def die_with_supervisor() -> None:
            if _libc is None:
                return
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != supervisor:
                # The supervisor died before the kernel knew whom to watch.
                os.kill(os.getpid(), signal.SIGKILL)

        return subprocess.Popen(  # noqa: S603 - a fixed list of our own programs, no shell
            part.command,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_supervisor,  # noqa: PLW1509 - this process has one thread
        )


def describe_exit(status: int) -> str:
    """An exit status as the end of a sentence."""
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with exit code {status}"


def _signal_session(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signals the part; with SIGKILL also whatever it left behind in its session's process group."""
    if number != signal.SIGKILL:
        process.send_signal(number)
        return
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def _wait(processes: Sequence[subprocess.Popen[bytes]], deadline: float, clock: Callable[[], float]) -> None:
    while any(process.poll() is None for process in processes) and clock() < deadline:
        time.sleep(POLL_SECONDS)
