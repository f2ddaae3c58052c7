"""What leaving zeros out of an ONNX file costs and saves: bytes, seconds and memory at load, latency; and exactness.

    python -m tests.benchmarks.sparse_onnx [--only NAME]

Every model is pruned by magnitude in each layer, with no training after it: what it still predicts is not the point
here. Each file is opened in a fresh process of stock onnxruntime, one thread. The peers are ONNX's own sparse
initializers, with the narrowest positions that onnxruntime takes, and the dense file in a zip.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper

from app.cli.zoo import fetch
from tests.benchmarks import deep_compression_inputs
from tests.benchmarks.inputs import minilm_onnx
from tests.benchmarks.onnx_dynamic_int8 import feeds_for
from tests.benchmarks.self_expanding import PROBE, layers
from tests.benchmarks.training_runs import verdict
from workers.compression.context import Context
from workers.compression.families.onnx.expanding import expand
from workers.compression.families.onnx.family import open_model
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.registry import handler_for
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.prune_weights import MagnitudePrune
from workers.compression.specs.steps.quantize_weights import KmeansQuantize

BITS = 4
LEAST_RATIO, MODELS_WITH_BAR = 25.0, ("LeNet-300-100, 92 %",)
MODELS: dict[str, tuple[float, Callable[[Path], Path]]] = {
    "LeNet-300-100, 92 %": (0.92, lambda _: deep_compression_inputs.float_network("LeNet-300-100", 0)),
    "magika, 80 %": (0.8, lambda _: fetch("magika") / "model.onnx"),
    "all-MiniLM-L6-v2, 90 %": (0.9, minilm_onnx),
    "50 layers of 720 x 720, 90 %": (0.9, layers),
}


def contenders(path: Path, sparsity: float, folder: Path) -> Iterator[tuple[str, Path]]:
    """Files of one model by label; of a self-expanding file its dense twin comes right after it."""
    opened(path, folder).save(folder / "float.onnx")
    yield "float", folder / "float.onnx"
    for storage in ("dense", "sparse"):
        pruned(path, sparsity, folder, storage=storage).save(folder / f"{storage}.onnx")
    yield "pruned, zeros left out", folder / "sparse.onnx"
    yield "pruned, dense", folder / "dense.onnx"
    coded = pruned(path, sparsity, folder)
    spec = KmeansQuantize(bits=BITS)
    handler_for(KmeansQuantize, ModelFormat.ONNX)(coded, spec, Context(scratch=folder))
    coded.save(folder / "coded.onnx")
    yield f"pruned, {BITS}-bit codebook", folder / "coded.onnx"
    expand(coded.proto)
    coded.changed()
    coded.save(folder / "expanded.onnx")
    yield "the same, expanded", folder / "expanded.onnx"
    (folder / "peer.onnx").write_bytes(with_sparse_initializers(onnx.load(folder / "dense.onnx")))
    yield "peer: sparse initializers", folder / "peer.onnx"


def pruned(path: Path, sparsity: float, folder: Path, **fields: str) -> OnnxModel:
    """The model, pruned in each layer."""
    model = opened(path, folder)
    spec = MagnitudePrune.model_validate({"sparsity": sparsity, "scope": "layer", **fields})
    handler_for(MagnitudePrune, ModelFormat.ONNX)(model, spec, Context(scratch=folder))
    return model


def opened(path: Path, folder: Path) -> OnnxModel:
    return open_model(path, Context(scratch=folder))


def with_sparse_initializers(proto: ModelProto) -> bytes:
    """The file with each initializer that gets smaller by it stored as its values and their positions."""
    for index in reversed(range(len(proto.graph.initializer))):
        tensor = proto.graph.initializer[index]
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim < 2:
            continue
        flat = values.reshape(-1)
        positions = np.flatnonzero(flat)
        width = np.int16 if values.size < 1 << 15 else np.int32
        stored = numpy_helper.from_array(flat[positions], tensor.name)
        sparse = helper.make_sparse_tensor(stored, numpy_helper.from_array(positions.astype(width)), values.shape)
        if sparse.ByteSize() < tensor.ByteSize():
            proto.graph.sparse_initializer.append(sparse)
            del proto.graph.initializer[index]
    return bytes(proto.SerializeToString())


def report(name: str, path: Path, sparsity: float, folder: Path) -> None:
    """Prints a line per file, what is exact, and the bar where there is one."""
    feeds = feeds_for(opened(path, folder), 1, 64)
    np.savez(folder / "feeds.npz", **feeds)
    print(f"\n{name}\n{'':30}{'bytes':>13}{'ratio':>9}{'load s':>8}{'load MB':>9}{'ms':>9}")
    made: dict[str, tuple[int, list[np.ndarray]]] = {}
    for label, file in contenders(path, sparsity, folder):
        command = [sys.executable, "-c", PROBE, str(file), str(folder / "feeds.npz")]
        probe = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        size = file.stat().st_size
        made[label] = size, OnnxModel(onnx.load(file)).run(feeds)
        print(
            f"{label:30}{size:13,}{made['float'][0] / size:8.2f}x{probe['load']:8.3f}{probe['peak']:9.1f}"
            f"{1000 * probe['latency']:9.3f}",
            flush=True,
        )
    for label, file in (("dense, zipped", "dense"), ("coded and expanded, zipped", "expanded")):
        with zipfile.ZipFile(folder / "peer.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            archive.write(folder / f"{file}.onnx")
        size = (folder / "peer.zip").stat().st_size
        print(f"peer: {label:24}{size:13,}{made['float'][0] / size:8.2f}x   (has to be unpacked before it runs)")
    labels = list(made)
    same = all(
        np.array_equal(ours, dense)
        for first in (1, 3)
        for ours, dense in zip(made[labels[first]][1], made[labels[first + 1]][1], strict=True)
    )
    print(f"bar: outputs equal to those of the dense files, bit for bit: {verdict(same)}")
    smaller = made["pruned, zeros left out"][0] < made["peer: sparse initializers"][0]
    print(f"bar: smaller than sparse initializers: {verdict(smaller)}")
    if name in MODELS_WITH_BAR:
        ratio = made["float"][0] / made[f"pruned, {BITS}-bit codebook"][0]
        print(f"bar: at least {LEAST_RATIO:.0f} times smaller as a file that runs: {verdict(ratio >= LEAST_RATIO)}")


def main() -> None:
    """Reports all models."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="")
    wanted = parser.parse_args().only
    for name, (sparsity, write) in MODELS.items():
        if wanted in name:
            with tempfile.TemporaryDirectory() as folder:
                report(name, write(Path(folder)), sparsity, Path(folder))


if __name__ == "__main__":
    main()
