"""Why a child ended without a result, in words that help its user."""

import contextlib
import signal
from pathlib import Path

from workers.child import Ending
from workers.compression.specs.errors import Code
from workers.compression.specs.messages import Failure
from workers.sandbox import UNCONFINED_EXIT

MEMORY_WORDS = (
    "memoryerror",
    "bad_alloc",
    "allocate memory",
    "failed to allocate",
    "out of memory",
    "oom-kill",
)
DISK_WORDS = ("no space left on device", "file too large", "disk quota exceeded")
CRASH_SIGNALS = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP})

_SMALLER = "Use a smaller model or batch, or a worker with more memory (PRESSROOM_CHILD_MEMORY_BYTES)."
_CRASH_HINT = "The model makes a library crash; such a job is not tried again. Export the model anew."


def explain(ending: Ending, *, step: str, cpu_limit: int, oom_killed: bool) -> Failure:
    """The failure of a child that ended by itself and left no readable result.

    Args:
        cpu_limit: Seconds of CPU time it was allowed.
        oom_killed: Whether the kernel killed something in this cgroup for lack of memory meanwhile.
    """
    said = ending.stderr.lower()
    if ending.returncode < 0:
        return _killed(ending, step=step, cpu_limit=cpu_limit, oom_killed=oom_killed)
    if ending.returncode == UNCONFINED_EXIT:
        return Failure(code=Code.INTERNAL, detail="The sandbox could not be set up.", reason="sandbox", step=step)
    if any(word in said for word in MEMORY_WORDS):
        return _out_of_memory(step)
    if any(word in said for word in DISK_WORDS):
        return _out_of_disk(step)
    return Failure(
        code=Code.CRASHED,
        reason="worker_crashed",
        detail=f"The {step} process ended with code {ending.returncode} and left no result.",
        hint="The job's log has its last words.",
        step=step,
    )


def _killed(ending: Ending, *, step: str, cpu_limit: int, oom_killed: bool) -> Failure:
    number = -ending.returncode
    used_up = ending.cpu_seconds >= cpu_limit
    if number == signal.SIGXCPU or (number == signal.SIGKILL and used_up):
        return Failure(
            code=Code.TIMEOUT,
            reason="cpu_limit",
            detail=f"The {step} process used up its {cpu_limit} seconds of CPU time.",
            hint="Raise execution.timeout_seconds or use a smaller model.",
            step=step,
        )
    crashed = number in CRASH_SIGNALS
    if oom_killed or (crashed and any(word in ending.stderr.lower() for word in MEMORY_WORDS)):
        return _out_of_memory(step)
    if number == signal.SIGXFSZ:
        return _out_of_disk(step)
    if crashed:
        detail = f"The {step} process crashed ({_name(number)})."
        return Failure(code=Code.CRASHED, reason="worker_crashed", detail=detail, hint=_CRASH_HINT, step=step)
    if number == signal.SIGSYS:
        detail = f"The {step} process made a system call that the sandbox forbids."
        return Failure(code=Code.SANDBOX_VIOLATION, reason="system_call", detail=detail, step=step)
    return Failure(
        code=Code.WORKER_LOST,
        reason="killed",
        detail=f"The {step} process was killed from outside ({_name(number)}).",
        hint="Often the machine was out of memory. Submit the job again or use a larger worker.",
        step=step,
    )


def out_of_scratch(step: str) -> Failure:
    """The supervisor ended a child that filled its folder."""
    return _out_of_disk(step)


def _out_of_memory(step: str) -> Failure:
    detail = f"The {step} process ran out of memory."
    return Failure(code=Code.OUT_OF_MEMORY, reason="memory_limit", detail=detail, hint=_SMALLER, step=step)


def _out_of_disk(step: str) -> Failure:
    return Failure(
        code=Code.OUT_OF_DISK,
        reason="disk_limit",
        detail=f"The {step} process wrote more than it may.",
        hint="Raise PRESSROOM_CHILD_FILE_BYTES if the model is that large.",
        step=step,
    )


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def oom_kills() -> int:
    """How often the kernel killed for lack of memory in this process's cgroup; 0 where it does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text("ascii").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "memory":
                return _counter(Path(f"/sys/fs/cgroup/memory{path}/memory.oom_control"))
            if controllers == "":
                events = Path(f"/sys/fs/cgroup{path}/memory.events")
                if events.exists():
                    return _counter(events)
    return 0


def _counter(path: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text("ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
