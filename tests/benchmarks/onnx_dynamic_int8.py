"""Our dynamic int8 against onnxruntime's ``quantize_dynamic``: one model, the same rows, one process.

    python -m tests.benchmarks.onnx_dynamic_int8 [MODEL --rows N --length T]

MODEL is an ``.onnx`` file or an archive with a tokenizer, by default all-MiniLM-L6-v2. With a tokenizer the rows are
sentences of this repository's own documents, otherwise made up.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer

from tests.benchmarks.inputs import minilm_onnx
from workers.compression.context import Context
from workers.compression.data import synthetic
from workers.compression.families.model import Array
from workers.compression.families.onnx.family import open_model
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.specs.steps.quantize import DynamicQuantize
from workers.compression.techniques.quantize.dynamic.onnx import quantize_dynamically

Feeds = dict[str, Array]

PEERS: dict[str, dict[str, object]] = {
    "onnxruntime default": {},
    "onnxruntime per channel": {"per_channel": True},
    "onnxruntime per channel, reduced range": {"per_channel": True, "reduce_range": True},
    "onnxruntime per channel, uint8": {"per_channel": True, "weight_type": QuantType.QUInt8},
}
CALLS = 15


def feeds_for(model: OnnxModel, rows: int, length: int) -> Feeds:
    tokenizer_file = model.tokenizer_file()
    if tokenizer_file is None:
        data = synthetic(model.inputs, rows, 0, {})
        return dict(next(data.batches(model.inputs, rows, None)).feeds)
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    text = (Path(__file__).parents[2] / "LICENSE").read_text().split("\n")
    encoded = tokenizer.encode_batch([line.strip() for line in text if len(line.strip()) > 30][:rows])
    ids = np.array([row.ids for row in encoded])
    by_name = {"input_ids": ids, "attention_mask": np.array([row.attention_mask for row in encoded])}
    return {port.name: by_name.get(port.name, np.zeros_like(ids)) for port in model.inputs}


def outputs(model: OnnxModel, feeds: Feeds) -> Array:
    """Mean over tokens where outputs are per token, else the output."""
    parts = []
    for start in range(0, len(next(iter(feeds.values()))), 16):
        batch = {name: values[start : start + 16] for name, values in feeds.items()}
        first = model.run(batch)[0]
        mask = batch.get("attention_mask")
        if mask is not None and first.ndim == 3:
            first = (first * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        parts.append(first.reshape(len(first), -1))
    return np.concatenate(parts)


def cosine(left: Array, right: Array) -> float:
    scale = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(np.mean((left * right).sum(axis=1) / scale))


def speed_up(original: OnnxModel, compressed: OnnxModel, feeds: Feeds, batch: int) -> float:
    """Median of the ratio of interleaved calls."""
    rows = {name: values[:batch] for name, values in feeds.items()}
    ratios = []
    for call in range(CALLS + 3):
        seconds = []
        for model in (original, compressed):
            started = time.perf_counter()
            model.run(rows)
            seconds.append(time.perf_counter() - started)
        if call >= 3:
            ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)


def contenders(path: Path, folder: Path) -> Iterator[tuple[str, OnnxModel]]:
    for scheme in ("auto", "symmetric"):
        model = open_model(path, Context(scratch=folder))
        ours = quantize_dynamically(model, DynamicQuantize(scheme=scheme), Context(scratch=folder))
        ours.save(folder / "ours.onnx")
        yield f"pressroom {scheme}", open_model(folder / "ours.onnx", Context(scratch=folder))
    open_model(path, Context(scratch=folder)).save(folder / "float.onnx")
    for name, options in PEERS.items():
        quantize_dynamic(folder / "float.onnx", folder / "peer.onnx", **options)
        yield name, open_model(folder / "peer.onnx", Context(scratch=folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--length", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = arguments.model or minilm_onnx(folder)
        original = open_model(path, Context(scratch=folder))
        feeds = feeds_for(original, arguments.rows, arguments.length)
        exact = outputs(original, feeds)
        print(f"{'':42}{'bytes':>12}{'ratio':>8}{'cosine':>9}{'x b1':>7}{'x b8':>7}")
        print(f"{'float':42}{original.size_bytes():12}{1.0:8.3f}{1.0:9.5f}{1.0:7.2f}{1.0:7.2f}")
        for label, model in contenders(path, folder):
            ratio = model.size_bytes() / original.size_bytes()
            close = cosine(exact, outputs(model, feeds))
            quick = [speed_up(original, model, feeds, batch) for batch in (1, 8)]
            print(
                f"{label:42}{model.size_bytes():12}{ratio:8.3f}{close:9.5f}{quick[0]:7.2f}{quick[1]:7.2f}", flush=True
            )


if __name__ == "__main__":
    main()
