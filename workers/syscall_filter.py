"""Seccomp: system calls that a job never needs and an attacker would.

Threads, files, memory and time stay; processes, sockets, tracing, mounts and keys go. A refused call returns EPERM, so
that libraries that merely try (``uname`` by subprocess, a semaphore) fall back instead of dying.
"""

import errno
import os

import pyseccomp as seccomp

_CLONE_THREAD = 0x00010000
_PR_SET_PDEATHSIG = 1

_FORBIDDEN = (
    # Sockets: neither the network nor a local daemon.
    *("socket", "socketpair", "connect", "bind", "listen", "accept", "accept4"),
    # Other programs and processes, and leaving the supervisor's process group.
    *("execve", "execveat", "fork", "vfork", "setsid", "setpgid", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"),
    *("ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_open", "pidfd_getfd", "pidfd_send_signal"),
    # The file-system tree and the kernel.
    *("mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsmount", "mount_setattr"),
    *("unshare", "setns", "open_by_handle_at", "name_to_handle_at", "quotactl", "acct", "swapon", "swapoff"),
    *("bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "syslog"),
    *("settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "sethostname", "setdomainname", "personality"),
    *("iopl", "ioperm", "modify_ldt", "add_key", "request_key", "keyctl"),
    # Memory and queues that would outlive the child or be shared with another.
    *("shmget", "shmat", "semget", "msgget", "mq_open"),
    "setrlimit",
)


def install() -> None:
    """Filters this thread's system calls and those of every thread it starts.

    Raises:
        OSError: the kernel refused.
    """
    refuse = seccomp.ERRNO(errno.EPERM)
    rules = seccomp.SyscallFilter(seccomp.ALLOW)
    for name in _FORBIDDEN:
        _add(rules, refuse, name)
    _add(rules, refuse, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, _CLONE_THREAD, 0))
    # The flags of clone3 lie in memory, where a filter cannot look; libc falls back to clone on ENOSYS.
    _add(rules, seccomp.ERRNO(errno.ENOSYS), "clone3")
    own = os.getpid()
    for name in ("kill", "tgkill"):
        _add(rules, refuse, name, seccomp.Arg(0, seccomp.NE, own))
    _add(rules, refuse, "prlimit64", seccomp.Arg(2, seccomp.NE, 0))
    _add(rules, refuse, "prctl", seccomp.Arg(0, seccomp.EQ, _PR_SET_PDEATHSIG))
    rules.load()


def _add(rules: seccomp.SyscallFilter, action: int, name: str, *arguments: seccomp.Arg) -> None:
    """Adds a rule, unless this architecture or this libseccomp does not know the call."""
    try:
        number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, name)
    except (OSError, ValueError):
        return
    if number >= 0:
        rules.add_rule(action, number, *arguments)
