"""What a result depends on besides its inputs: versions, instruction set, threads."""

import os
import platform
from importlib import metadata
from pathlib import Path

from pydantic import JsonValue

DISTRIBUTIONS = (
    "numpy",
    "onnx",
    "onnxruntime",
    "torch",
    "transformers",
    "scikit-learn",
    "skops",
    "pressroom",
)
FLAGS_THAT_MATTER = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm", "f16c", "avx512_bf16")


def cpu_flags() -> frozenset[str]:
    """Instruction-set flags of this CPU as Linux names them; empty where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


def cpu_model() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def describe(threads: int) -> dict[str, JsonValue]:
    """Facts for the report."""
    flags = cpu_flags()
    versions: dict[str, JsonValue] = {}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpu": cpu_model(),
        "instruction_sets": [flag for flag in FLAGS_THAT_MATTER if flag in flags],
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "versions": versions,
    }
