"""What a worker runs on and what confines its children, for the registry and the reports."""

import json
import os
import tempfile
from importlib import metadata

import psutil
from pydantic import JsonValue

from workers.child import Child
from workers.compression.environment import DISTRIBUTIONS, FLAGS_THAT_MATTER, cpu_flags, cpu_model
from workers.landlock import abi_version
from workers.sandbox_profile import Profile


def describe_hardware() -> dict[str, JsonValue]:
    """CPU model, the instruction sets that matter to kernels, cores, memory."""
    flags = cpu_flags()
    return {
        "cpu": cpu_model(),
        "instruction_sets": [flag for flag in FLAGS_THAT_MATTER if flag in flags],
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def installed_versions() -> dict[str, str]:
    """Versions of what shapes results; asked of the package index, nothing is imported."""
    versions = {}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def describe_sandbox() -> dict[str, JsonValue]:
    """Which layers hold on this machine, seen by a real child that tries to get past them."""
    lines: list[bytes] = []
    with tempfile.TemporaryDirectory(prefix="pressroom-check-") as scratch:
        profile = Profile(
            parent=os.getpid(),
            scratch=scratch,
            memory_bytes=1 << 30,
            cpu_seconds=10,
            file_bytes=1 << 20,
            program="workers.sandbox_check",
        )
        child = Child(profile, threads=1, disk_bytes=1 << 20)
        try:
            child.run(lines.append, lambda: None, 0.0)
        finally:
            child.close()
    held = json.loads(lines[-1]) if lines else {}
    return {
        "rlimits": True,
        "death_signal": True,
        "landlock": abi_version() if held.get("landlock") else 0,
        "seccomp": bool(held.get("seccomp")),
        "user": "root" if os.geteuid() == 0 else "unprivileged",
    }


def is_confined(sandbox: dict[str, JsonValue]) -> bool:
    """Whether both kernel layers hold."""
    return bool(sandbox["landlock"]) and bool(sandbox["seccomp"])
