"""Landlock: file-system, network and signal rules that a process lays upon itself and can never take off again.

By system call, for neither libc nor Python wraps it. See ``Documentation/userspace-api/landlock.rst`` of the kernel.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG = 1 << 7, 1 << 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FIRST_ABI_ACCESS = (1 << 13) - 1

READ = _READ_FILE | _READ_DIR
# No links, sockets, pipes or devices: the parent finds plain files or nothing.
WRITE = READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER | _TRUNCATE
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV

_libc = ctypes.CDLL(None, use_errno=True)


def abi_version() -> int:
    """The kernel's Landlock ABI, 0 if it has none."""
    version: int = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    return max(version, 0)


def restrict(readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """Forbids every file access but reading ``readable`` and everything ordinary in ``writable``.

    Also forbids TCP (ABI 4) and signals and abstract sockets that reach outside (ABI 6), where the kernel knows how.

    Raises:
        OSError: the kernel refused; nothing is restricted then.
    """
    abi = abi_version()
    handled = _handled_access(abi)
    attributes = struct.pack("<QQQ", handled, 0b11 if abi >= 4 else 0, 0b11 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _checked(_libc.syscall(_CREATE_RULESET, attributes[:size], ctypes.c_size_t(size), ctypes.c_uint32(0)))
    try:
        for paths, access in ((readable, READ), (writable, WRITE)):
            for path in paths:
                _allow(ruleset, path, access & handled)
        _checked(_libc.syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)))
    finally:
        os.close(ruleset)


def _handled_access(abi: int) -> int:
    handled = _FIRST_ABI_ACCESS
    for since, access in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        if abi >= since:
            handled |= access
    return handled


def _allow(ruleset: int, path: Path, access: int) -> None:
    """Adds a rule; a path that does not exist on this machine needs none."""
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            access &= _ON_FILES
        rule = struct.pack("<Qi", access, target)
        _checked(
            _libc.syscall(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), rule, ctypes.c_uint32(0))
        )
    finally:
        os.close(target)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
