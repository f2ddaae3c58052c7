"""Environments of their own for peers whose requirements exclude ours, made when first asked for and then kept.

    environment = prepared("nncf")
    environment.run(SCRIPT, "model.onnx", "made.onnx")

They lie in ``PRESSROOM_PEERS``, else in the user's cache. ``TORCH_INDEX`` is where torch comes from, as for ``make
setup``.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TORCH = "torch==2.13.0"
REQUIREMENTS = {
    "llm-compressor": (TORCH, "llmcompressor==0.14.0.1", "transformers==5.17.0", "numpy==2.4.6"),
    "nncf": (TORCH, "nncf==3.4.0", "openvino==2026.4.1", "onnx==1.23.2", "onnxruntime==1.32.0"),
    "neural-compressor": (TORCH, "neural_compressor_pt==3.10", "torchao==0.18.0", "transformers==5.23.0"),
    "oldest-onnxruntime": ("onnxruntime==1.19.2", "numpy==2.4.6"),
}
INSTALL_SECONDS = 3600
RUN_SECONDS = 1800


class PeerUnavailable(Exception):
    """The peer's environment could not be made, or its script failed; says why in one line."""


@dataclass(frozen=True)
class Environment:
    """An interpreter with a peer's packages."""

    python: Path

    def run(self, script: Path, *arguments: str | Path, timeout: float = RUN_SECONDS) -> str:
        """What a script prints; it finds only the peer's packages, none of ours.

        Raises:
            PeerUnavailable: It failed or took too long.
        """
        # Continuous integration is what the telemetry of OpenVINO's tools takes as an answer that it stays off.
        surroundings = {**os.environ, "CI": "true", "PYTHONPATH": ""}
        return _run((self.python, "-P", script, *arguments), timeout, surroundings)


def prepared(name: str) -> Environment:
    """The environment of ``REQUIREMENTS[name]``.

    Raises:
        PeerUnavailable: A package could not be installed.
    """
    requirements = REQUIREMENTS[name]
    digest = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:8]
    folder = _cache_folder() / f"{name}-{digest}"
    environment = Environment(folder / "bin" / "python")
    stamp = folder / ".complete"
    if not stamp.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run((sys.executable, "-m", "venv", folder), INSTALL_SECONDS)
        _install(environment, requirements)
        stamp.touch()
    return environment


def _install(environment: Environment, requirements: tuple[str, ...]) -> None:
    """Torch first, for resolved with the others it would be replaced by another build."""
    pip = (environment.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    index = os.environ.get("TORCH_INDEX")
    if TORCH in requirements:
        _run((*pip, *(("--index-url", index) if index else ()), TORCH), INSTALL_SECONDS)
    _run((*pip, *requirements), INSTALL_SECONDS)


def _cache_folder() -> Path:
    if chosen := os.environ.get("PRESSROOM_PEERS"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pressroom" / "peers"


def _run(command: tuple[str | Path, ...], timeout: float, surroundings: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise PeerUnavailable(f"{command[0]}: {failure}") from failure
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines() or ["no word of why"]
        raise PeerUnavailable(f"{' '.join(map(str, command[:4]))}: {words[-1][:500]}")
    return done.stdout
