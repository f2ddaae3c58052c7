"""What a self-expanding ONNX file costs: bytes on disk, seconds and memory at load, latency; beside float and a peer.

    python -m tests.benchmarks.self_expanding [--only NAME]

Each file is opened in a fresh process of stock onnxruntime, one thread. The peer is onnxruntime's own 4-bit
``MatMulNBits`` in groups of 32. MiniLM's cosine is that of the mean over tokens on 96 sentences.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from tests.benchmarks.inputs import minilm_onnx
from tests.benchmarks.onnx_dynamic_int8 import Feeds, cosine, feeds_for, outputs
from tests.benchmarks.training_runs import verdict
from workers.compression.context import Context
from workers.compression.families.onnx.expanding import expand
from workers.compression.families.onnx.family import open_model
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.registry import handler_for
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.quantize_weights import KmeansQuantize

MOST_BYTES, LEAST_COSINE = 12_500_000, 0.964
RECIPES: dict[str, dict[str, object]] = {
    "codebook": {},
    "codebook, scales of 32": {"scale_group": 32},
    "codebook, scales of 64": {"scale_group": 64},
}
PROBE = """
import json, sys, time
import numpy as np
import onnxruntime
def highest():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
with np.load(sys.argv[2]) as stored:
    feeds = {name: stored[name] for name in stored.files}
idle = highest()
started = time.perf_counter()
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
load = time.perf_counter() - started
peak = highest()
seconds = []
for _ in range(30):
    started = time.perf_counter()
    session.run(None, feeds)
    seconds.append(time.perf_counter() - started)
print(json.dumps({"load": load, "peak": (peak - idle) / 1024, "latency": sorted(seconds)[15]}))
"""


@dataclass(frozen=True)
class Contender:
    """A file to open."""

    label: str
    path: Path


def layers(folder: Path) -> Path:
    """Fifty products of 720 by 720: 103.7 MB."""
    random = np.random.default_rng(0)
    nodes, stored = [], []
    for index in range(50):
        weight = random.standard_normal((720, 720)).astype(np.float32) / np.float32(np.sqrt(720))
        stored.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [f"x{index}", f"w{index}"], [f"x{index + 1}"], name=f"layer{index}"))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 720]) for name in ("x0", "x50")]
    graph = helper.make_graph(nodes, "layers", ends[:1], ends[1:], stored)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "layers.onnx"
    )
    return folder / "layers.onnx"


def contenders(path: Path, folder: Path) -> Iterator[Contender]:
    """Float, ours in several recipes, the first of them expanded again, and the peer."""
    original = _opened(path, folder)
    original.save(folder / "float.onnx")
    yield Contender("float", folder / "float.onnx")
    for number, (label, options) in enumerate(RECIPES.items()):
        model = _opened(path, folder)
        spec = KmeansQuantize.model_validate({"bits": 4, **options})
        handler_for(KmeansQuantize, ModelFormat.ONNX)(model, spec, Context(scratch=folder))
        model.save(folder / f"{number}.onnx")
        yield Contender(f"4-bit {label}", folder / f"{number}.onnx")
    dense = _opened(folder / "0.onnx", folder)
    expand(dense.proto)
    dense.changed()
    dense.save(folder / "dense.onnx")
    yield Contender("the first, expanded", folder / "dense.onnx")
    peer = MatMulNBitsQuantizer(onnx.load(folder / "float.onnx"), block_size=32, is_symmetric=False)
    peer.process()
    peer.model.save_model_to_file(str(folder / "peer.onnx"))
    yield Contender("onnxruntime MatMulNBits, 32", folder / "peer.onnx")


def report(name: str, path: Path, folder: Path) -> None:
    """Prints a line per file, and the bar where there is one."""
    original = _opened(path, folder)
    feeds = feeds_for(original, 96, 64)
    exact = outputs(original, feeds)
    first: Feeds = {key: values[:1] for key, values in feeds.items()}
    np.savez(folder / "feeds.npz", **first)
    print(f"\n{name}\n{'':34}{'bytes':>13}{'ratio':>8}{'cosine':>9}{'load s':>8}{'load MB':>9}{'ms':>8}")
    reached: list[tuple[int, float]] = []
    for found in contenders(path, folder):
        command = [sys.executable, "-c", PROBE, str(found.path), str(folder / "feeds.npz")]
        probe = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        close = cosine(exact, outputs(_opened(found.path, folder), feeds))
        size = found.path.stat().st_size
        if found.label.startswith("4-bit"):
            reached.append((size, close))
        ratio = (folder / "float.onnx").stat().st_size / size
        print(
            f"{found.label:34}{size:13,}{ratio:7.2f}x{close:9.4f}{probe['load']:8.2f}{probe['peak']:9.0f}"
            f"{1000 * probe['latency']:8.2f}",
            flush=True,
        )
    if name.startswith("all-MiniLM"):
        held = any(size <= MOST_BYTES and close > LEAST_COSINE for size, close in reached)
        print(f"bar: at most 12.5 MB with cosine above {LEAST_COSINE}: {verdict(held)}")
    else:
        held = any((folder / "float.onnx").stat().st_size / size >= 7.9 for size, _ in reached)
        print(f"bar: eight times smaller at 4 bits (7.9x or more): {verdict(held)}")


def _opened(path: Path, folder: Path) -> OnnxModel:
    return open_model(path, Context(scratch=folder))


def main() -> None:
    """Reports both models."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="")
    wanted = parser.parse_args().only
    for name, write in (("50 layers of 720 x 720", layers), ("all-MiniLM-L6-v2", minilm_onnx)):
        if wanted in name:
            with tempfile.TemporaryDirectory() as folder:
                report(name, write(Path(folder)), Path(folder))


if __name__ == "__main__":
    main()
