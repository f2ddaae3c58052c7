"""How a child locks itself in, before it touches anything that came from outside.

Order matters: the parent's death signal first, privileges that would undo the rest, limits, then Landlock, then
seccomp, which forbids the calls that the others needed.
"""

import contextlib
import ctypes
import os
import resource
import signal
import site
import sys
from collections.abc import Iterator
from pathlib import Path

from workers import landlock
from workers.sandbox_profile import Profile

try:
    from workers.syscall_filter import install as _install_filter
except (ImportError, RuntimeError):  # pyseccomp raises RuntimeError where the C library is missing.
    _FILTER = None
else:
    _FILTER = _install_filter

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
# A supervisor that runs as root must still reach blobs and scratch in folders of another user.
_CAP_DAC_OVERRIDE = 1 << 1
_OPEN_FILES = 1024
# Per user, not per child: a bound on runaway threads only, far above what all children of a host need.
_THREADS = 8192
_CPU_GRACE_SECONDS = 5

_SYSTEM_FILES = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo"),
    *("/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm/overcommit_memory"),
    *("/sys/devices/system/cpu", "/sys/devices/system/node"),
)

_libc = ctypes.CDLL(None, use_errno=True)


class Unconfined(Exception):
    """A layer that has to be there is missing."""


def confine(profile: Profile) -> None:
    """Locks this process in, for good.

    Raises:
        Unconfined: ``profile.required`` is set and Landlock or seccomp is missing, or the parent is gone.
    """
    _die_with(profile.parent)
    with contextlib.suppress(OSError):
        # When memory runs out, the kernel should take the child, never the supervisor.
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    _drop_privileges()
    _set_limits(profile)
    if landlock.abi_version():
        landlock.restrict(_readable(profile), [Path(profile.scratch)])
    elif profile.required:
        raise Unconfined("The kernel has no Landlock.")
    if _FILTER is not None:
        _FILTER()
    elif profile.required:
        raise Unconfined("libseccomp is not installed.")


def _die_with(parent: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), *_zeros(3))
    # The signal is not sent for a parent that died before it was asked for.
    if os.getppid() != parent:
        raise Unconfined("The supervisor is gone.")


def _drop_privileges() -> None:
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), *_zeros(3))
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    current = (ctypes.c_uint32 * 6)()
    _libc.capget(header, current)
    kept = current[1] & _CAP_DAC_OVERRIDE
    _libc.capset(header, (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0))


def _zeros(count: int) -> Iterator[ctypes.c_ulong]:
    return (ctypes.c_ulong(0) for _ in range(count))


def _set_limits(profile: Profile) -> None:
    limits = {
        resource.RLIMIT_AS: profile.memory_bytes,
        resource.RLIMIT_CPU: profile.cpu_seconds,
        resource.RLIMIT_FSIZE: profile.file_bytes,
        resource.RLIMIT_NPROC: _THREADS,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for limit, wanted in limits.items():
        grace = _CPU_GRACE_SECONDS if limit == resource.RLIMIT_CPU else 0
        allowed = resource.getrlimit(limit)[1]
        hard = wanted + grace if allowed == resource.RLIM_INFINITY else min(wanted + grace, allowed)
        resource.setrlimit(limit, (min(wanted, hard), hard))


def _readable(profile: Profile) -> Iterator[Path]:
    # Not the folder that the packages lie in: with a source checkout it may hold the data folder too.
    yield Path(__file__).parent
    yield from (Path(prefix) for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix, *site.getsitepackages()})
    yield from (Path(path) for path in (*_SYSTEM_FILES, *profile.readable))
    if profile.program_path is not None:
        yield Path(profile.program_path)
