"""The supervisor's side of a sandboxed child: start it, listen to it, end it.

The child is not trusted. Its output is read without blocking and without end but kept only up to caps; it is killed
as a process group; whatever is left of its session afterwards is killed too.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Self

import psutil

from workers.sandbox_profile import Profile
from workers.streams import LineReader, Tail

PACKAGE_ROOT = Path(__file__).resolve().parent.parent
LOOK_SECONDS = 0.1
DISK_LOOK_SECONDS = 1.0
MAX_SCRATCH_FILES = 100_000
STDERR_BYTES = 64 << 10

StopReason = Literal["cancelled", "shutdown", "lost", "timeout", "disk", "retry", "killed"]
"""Why a supervisor ends work.

``disk``: its folder grew too large; ``retry``: a later try may succeed; ``killed``: somebody else ended the child.
"""


@dataclass(frozen=True)
class Ending:
    """How a child ended.

    Args:
        returncode: As of ``subprocess``: negative for a signal.
        stopped: Why the supervisor ended it, None if it ended by itself.
        stderr: The last of what it wrote there.
        cpu_seconds: CPU time it used.
    """

    returncode: int
    stopped: StopReason | None
    stderr: str
    cpu_seconds: float


class Child:
    """A running child.

    The death signal of a child is tied to the *thread* that started it, so start it in the thread that waits for it.

    Args:
        profile: Its limits.
        threads: Threads its numerical libraries may start.
        disk_bytes: The scratch folder may hold this much.
    """

    def __init__(self, profile: Profile, *, threads: int, disk_bytes: int) -> None:
        self._scratch = Path(profile.scratch)
        self._disk_bytes = disk_bytes
        self._process = subprocess.Popen(
            # Not -I: the environment is ours alone, and PYTHONPATH and PYTHONHASHSEED have to count.
            [sys.executable, "-P", "-s", "-B", "-m", "workers.sandbox"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=profile.scratch,
            env=_environment(self._scratch, threads),
            start_new_session=True,
        )
        self.pid = self._process.pid
        with contextlib.suppress(BrokenPipeError), _pipe(self._process.stdin) as stdin:
            stdin.write(profile.to_json())

    def run(
        self, on_line: Callable[[bytes], None], should_stop: Callable[[], StopReason | None], grace_seconds: float
    ) -> Ending:
        """Listens until the child has ended.

        Args:
            on_line: Takes each line of its standard output, within caps.
            should_stop: Asked ten times a second; must not block.
            grace_seconds: Between SIGTERM and SIGKILL; a lost lease gets none.
        """
        lines, errors = LineReader(on_line), Tail(STDERR_BYTES)
        stopped: StopReason | None = None
        kill_at = disk_look = 0.0
        with _Listening(self._process) as listening:
            while not listening.ended(LOOK_SECONDS, lines.feed, errors.feed):
                now = time.monotonic()
                if stopped is None:
                    stopped = should_stop()
                    if stopped is None and now >= disk_look:
                        disk_look = now + DISK_LOOK_SECONDS
                        stopped = "disk" if self._fills_disk() else None
                    if stopped is not None:
                        kill_at = now + (0.0 if stopped == "lost" else grace_seconds)
                        self._signal(signal.SIGTERM)
                if stopped is not None and now >= kill_at:
                    self._signal(signal.SIGKILL)
            returncode, cpu_seconds = self._reap()
            listening.drain(lines.feed, errors.feed)
        return Ending(returncode, stopped, errors.text(), cpu_seconds)

    def close(self) -> None:
        """Makes sure that nothing of the child is left, whatever happened."""
        if self._process.returncode is None:
            self._signal(signal.SIGKILL)
            self._reap()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _reap(self) -> tuple[int, float]:
        # What is left of the session goes first: the group's id cannot be given to another one before the child is
        # reaped. Normally nothing is left, for the sandbox allows no second process.
        for pid in _session_members(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return self._process.returncode, usage.ru_utime + usage.ru_stime

    def _fills_disk(self) -> bool:
        total = 0
        for count, size in enumerate(_file_sizes(self._scratch)):
            total += size
            if total > self._disk_bytes or count > MAX_SCRATCH_FILES:
                return True
        return False


class _Listening:
    """Both output streams and the end of a process behind one wait."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
        self._pidfd = os.pidfd_open(process.pid)
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        for stream in self._streams:
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ)
        self._selector.register(self._pidfd, selectors.EVENT_READ)
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        os.close(self._pidfd)

    def ended(self, timeout: float, *feeds: Callable[[bytes], None]) -> bool:
        """Waits up to ``timeout``, hands over what came, tells whether the process has ended."""
        ended = False
        for key, _ in self._selector.select(timeout):
            if key.fileobj == self._pidfd:
                ended = True
            elif not self._read(key.fileobj, feeds):  # type: ignore[arg-type]  # only the two streams are left
                self._selector.unregister(key.fileobj)
        return ended

    def drain(self, *feeds: Callable[[bytes], None]) -> None:
        """What the pipes still hold; a survivor that kept one open cannot make this wait."""
        for stream in self._streams:
            for _ in range(64):
                if not self._read(stream, feeds):
                    break

    def _read(self, stream: IO[bytes], feeds: tuple[Callable[[bytes], None], ...]) -> bool:
        try:
            data = os.read(stream.fileno(), 1 << 16)
        except BlockingIOError:
            return False
        feeds[self._streams.index(stream)](data)
        return bool(data)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise OSError("the child has no standard input")
    return stream


def _environment(scratch: Path, threads: int) -> dict[str, str]:
    """Nothing of the supervisor's environment, which holds passwords."""
    limited = {
        name: str(threads)
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    }
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(scratch),
        "TMPDIR": str(scratch / "tmp"),
        "USER": "pressroom",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(PACKAGE_ROOT),
        "PYTHONHASHSEED": "0",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **limited,
    }


def _session_members(session: int) -> Iterator[int]:
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if pid != session and os.getsid(pid) == session:
                yield pid


def _file_sizes(folder: Path) -> Iterator[int]:
    """Sizes of all files below a folder that is being written to."""
    waiting = [folder]
    while waiting:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                with contextlib.suppress(FileNotFoundError):
                    yield entry.stat(follow_symlinks=False).st_size
