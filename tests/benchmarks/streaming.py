"""A large bfloat16 safetensors file rounded to few bits: memory of the engine's processes, and speed.

    python -m tests.benchmarks.streaming [--gigabytes 2]

The weights are random: this says nothing of quality. They have the shapes of a language model of 1.1 billion
parameters. Compression is the engine's whole task in a process of its own: open, round, save with its bytes on the
disk, compare every layer. The yardstick is to read the same file, hash it and write it again with its bytes on the
disk, before and after each compression, in the same run. Memory is anonymous memory, polled, above what the process
holds with the engine imported.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from workers.compression.context import Context
from workers.compression.engine import perform
from workers.compression.families.tensors.stored import StoredTensor, write_safetensors
from workers.compression.registry import family, handler_for
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.messages import Compare, Compress, ModelFile, Request
from workers.compression.specs.steps.quantize_weights import WeightOnlyQuantize

HIDDEN, INNER, VOCABULARY, KEYS = 2048, 5632, 32_000, 256
RECIPES: dict[str, dict[str, Any]] = {
    "int8 per channel": {"bits": 8, "granularity": "channel", "range": "minmax"},
    "int4 in groups of 32": {"bits": 4, "granularity": "group", "group_size": 32, "range": "minmax"},
}
BARS = {"int8 per channel": 0.6, "int4 in groups of 32": 0.25}
MEMORY_BAR = 0.7e9
POLL_SECONDS = 0.002
_PIECE = 1 << 20


def write_model(path: Path, size: float) -> None:
    """About ``size`` bytes of random weights."""
    layer = {
        "self_attn.q_proj": (HIDDEN, HIDDEN),
        "self_attn.k_proj": (KEYS, HIDDEN),
        "self_attn.v_proj": (KEYS, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HIDDEN),
        "mlp.gate_proj": (INNER, HIDDEN),
        "mlp.up_proj": (INNER, HIDDEN),
        "mlp.down_proj": (HIDDEN, INNER),
        "input_layernorm": (HIDDEN,),
    }
    tables = 2 * 2 * VOCABULARY * HIDDEN
    layers = max(1, round((size - tables) / (2 * sum(torch.Size(shape).numel() for shape in layer.values()))))
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "lm_head.weight": (VOCABULARY, HIDDEN)}
    shapes |= {
        f"model.layers.{number}.{name}.weight": shape for number in range(layers) for name, shape in layer.items()
    }
    write_safetensors(path, {name: _random(seed, shape) for seed, (name, shape) in enumerate(shapes.items())}, {})


def _random(seed: int, shape: tuple[int, ...]) -> StoredTensor:
    def load() -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return (torch.randn(shape, generator=generator) * 0.02).to(torch.bfloat16)

    return StoredTensor(torch.bfloat16, shape, load)


def read_hash_write(source: Path, target: Path) -> float:
    """Seconds to read and hash a file and to write it again, synced."""
    started = time.perf_counter()
    digest = hashlib.sha256()
    with source.open("rb") as reading, target.open("wb") as writing:
        while piece := reading.read(_PIECE):
            digest.update(piece)
            writing.write(piece)
        writing.flush()
        os.fsync(writing.fileno())
    seconds = time.perf_counter() - started
    target.unlink()
    return seconds


def in_a_process(task: str, arguments: dict[str, Any], threads: int) -> dict[str, Any]:
    """What one task of the engine takes in a fresh process."""
    command = [sys.executable, "-m", "tests.benchmarks.streaming", "--task", json.dumps({"task": task, **arguments})]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_task(arguments: dict[str, Any]) -> dict[str, Any]:
    """The process's side."""
    torch.set_num_threads(arguments["threads"])
    family(ModelFormat.SAFETENSORS)
    handler_for(WeightOnlyQuantize, ModelFormat.SAFETENSORS)
    folder = Path(arguments["folder"])
    recipe = (WeightOnlyQuantize.model_validate(arguments["recipe"]),)
    original = ModelFile(path=arguments["model"], format=ModelFormat.SAFETENSORS)
    request: Request = Compress(model=original, recipe=recipe, threads=arguments["threads"])
    if arguments["task"] == "compare":
        made = ModelFile(path=arguments["made"], format=ModelFormat.SAFETENSORS)
        request = Compare(original=original, compressed=made, recipe=recipe)
    watched = _Memory()
    started = time.perf_counter()
    result = perform(request, folder, Context(scratch=folder))
    seconds = time.perf_counter() - started
    path = getattr(result, "path", "")
    return {"seconds": seconds, "memory": watched.above_idle(), "made": str(folder / path) if path else ""}


class _Memory:
    """Polls this process's anonymous memory."""

    def __init__(self) -> None:
        self._idle = self._peak = _anonymous_bytes()
        threading.Thread(target=self._poll, daemon=True).start()

    def above_idle(self) -> int:
        return self._peak - self._idle

    def _poll(self) -> None:
        while True:
            self._peak = max(self._peak, _anonymous_bytes())
            time.sleep(POLL_SECONDS)


def _anonymous_bytes() -> int:
    with Path("/proc/self/status").open() as status:
        line = next(line for line in status if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def measure(folder: Path, model: Path, threads: int) -> Iterator[tuple[str, bool]]:
    """A sentence for each figure with a bar, and whether it is met."""
    size = model.stat().st_size
    for name, recipe in RECIPES.items():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            arguments = {"model": str(model), "recipe": recipe, "threads": threads, "folder": scratch}
            before = read_hash_write(model, folder / "copy")
            made = in_a_process("compress", arguments, threads)
            after = read_hash_write(model, folder / "copy")
            compared = in_a_process("compare", {**arguments, "made": made["made"]}, threads)
            artifact = Path(made["made"]).stat().st_size
        ratio = (before + after) / 2 / made["seconds"]
        print(
            f"{name}, {threads} thread{'s' * (threads > 1)}: {size / 1e9:.2f} GB to {artifact / 1e9:.2f} GB in "
            f"{made['seconds']:.1f} s ({size / 2 / made['seconds'] / 1e6:.0f} Mparam/s); read, hash, write: "
            f"{before:.1f} and {after:.1f} s; compare task: {compared['seconds']:.1f} s"
        )
        yield _verdict(f"{name}, throughput", ratio, BARS[name], "x", lambda found, bar: found >= bar)
        for task, found in (("compress", made), ("compare", compared)):
            memory = found["memory"] / 1e9
            yield _verdict(f"{name}, memory of {task}", memory, MEMORY_BAR / 1e9, " GB", lambda got, bar: got <= bar)


def _verdict(what: str, found: float, bar: float, unit: str, holds: Callable[[float, float], bool]) -> tuple[str, bool]:
    met = holds(found, bar)
    return f"  {what}: {found:.2f}{unit} (bar: {bar:g}{unit}): {'met' if met else 'missed'}", met


def main() -> int:
    """Prints the figures; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(run_task(json.loads(options.task))))
        return 0
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model.safetensors"
        write_model(model, options.gigabytes * 1e9)
        for threads in sorted({1, os.cpu_count() or 1}):
            for sentence, met in measure(folder, model, threads):
                print(sentence, flush=True)
                missed += not met
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
