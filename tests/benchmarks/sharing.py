"""Repeated layers stored once, and one codebook for all layers against one for each.

    python -m tests.benchmarks.sharing [--only NAME] [--bits 6]

First: MiniLM whose blocks repeat in pairs, tied by ours, by the pass of torch's exporter (onnx_ir) and by onnxruntime.
Then: networks of the zoo with one codebook for all layers (``share.cluster``) beside one for each layer
(``quantize.kmeans``) in the same number of bits, and beside the best of one for each layer or group of channels whose
file is no larger. SQNR of weights is over all weights, SQNR of outputs on made-up inputs.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from tests.benchmarks.nonuniform import NETWORKS, store
from tests.benchmarks.sharing_inputs import (
    deduplicated_by_onnx_ir,
    repeated_bytes,
    repeating_minilm,
    saved_by_onnxruntime,
)
from workers.compression.context import Context
from workers.compression.data import first_feeds, synthetic
from workers.compression.families.onnx.family import open_model
from workers.compression.registry import family
from workers.compression.specs.containers.sniffing import sniff_model
from workers.compression.specs.formats import RUNNABLE_FORMATS
from workers.compression.specs.step import Step
from workers.compression.specs.steps.quantize_weights import KmeansQuantize
from workers.compression.specs.steps.share import ClusterShare, TieShare
from workers.compression.techniques.share.tie.onnx import tie_initializers

GRANULARITIES = [{"granularity": "tensor"}, *({"granularity": "group", "group_size": size} for size in (64, 32, 16))]
DEFAULT = ("PP-OCR orientation", "PP-OCR recognition", "silero-vad", "magika", "basic-pitch", "CREPE tiny")
ROWS = 8
NAMES_PER_TENSOR = 512
"""Bytes of names, types and shapes that a tensor's entry may take besides its values."""


def ties(folder: Path) -> bool:
    """Prints what each side makes of repeated layers; whether ours shrinks by what repeats, bit-identically."""
    path = repeating_minilm(folder / "repeats.onnx")
    size, repeated = path.stat().st_size, repeated_bytes(path)
    model = open_model(path, Context(scratch=folder))
    feeds = first_feeds(synthetic(model.inputs, ROWS, 0, {}), model.inputs, None, ROWS)
    tie_initializers(model, TieShare(), Context(scratch=folder)).save(folder / "tied.onnx")
    made = {
        "share.tie": folder / "tied.onnx",
        "onnx_ir DeduplicateInitializersPass": deduplicated_by_onnx_ir(path, folder / "onnx_ir.onnx"),
        "onnxruntime, saved optimized (basic)": saved_by_onnxruntime(path, folder / "onnxruntime.onnx"),
    }
    print(f"MiniLM, blocks repeated in pairs: {size:,} bytes, of which {repeated:,} repeat")
    before = _answers(path, feeds)
    met = False
    for label, file in made.items():
        saved = size - file.stat().st_size
        same = all(np.array_equal(*pair) for pair in zip(before, _answers(file, feeds), strict=True))
        print(f"  {label:38}{file.stat().st_size:12,} bytes, {saved:11,} fewer; bit-identical: {same}")
        if label == "share.tie":
            met = same and repeated <= saved <= repeated + NAMES_PER_TENSOR * 64
    print(f"bar: shrinks by what repeats, outputs bit-identical: {'met' if met else 'missed'}\n")
    return met


def _answers(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [np.asarray(found) for found in session.run(None, feeds)]


@dataclass(frozen=True)
class Clustered:
    """A file, the SQNR of its weights, and that of what it answers where it can be run."""

    size_bytes: int
    weights_db: float
    outputs_db: float | None

    def __str__(self) -> str:
        outputs = "     -" if self.outputs_db is None else f"{self.outputs_db:6.2f}"
        return f"{self.size_bytes:11,} {self.weights_db:6.2f} {outputs}"


def clustered(path: Path, spec: Step, folder: Path) -> Clustered:
    """Carries out one step on a network."""
    stored = store(path, spec, "", folder)
    model_format = sniff_model(path)
    if model_format not in RUNNABLE_FORMATS:
        return Clustered(stored.size_bytes, stored.sqnr_db, None)
    models = [family(model_format).open_model(file, Context(scratch=folder)) for file in (path, folder / "made")]
    feeds = first_feeds(synthetic(models[0].inputs, ROWS, 0, {}), models[0].inputs, None, ROWS)
    first, second = (np.concatenate([np.ravel(found).astype(np.float64) for found in m.run(feeds)]) for m in models)
    noise = float(np.square(first - second).sum())
    return Clustered(
        stored.size_bytes, stored.sqnr_db, float(10 * np.log10(np.square(first).sum() / max(noise, 1e-30)))
    )


def codebooks(name: str, bits: int, folder: Path) -> bool:
    """Prints a network's files; whether one codebook for all wins against all others of no larger a file."""
    path = NETWORKS[name](folder)
    ours = clustered(path, ClusterShare(bits=bits), folder)
    others = [
        clustered(path, KmeansQuantize.model_validate({"bits": bits, **found}), folder) for found in GRANULARITIES
    ]
    smaller = [other for other in others if other.size_bytes <= ours.size_bytes]
    best = max(smaller, key=lambda other: other.weights_db, default=None)
    won = best is None or ours.weights_db > best.weights_db
    print(f"{name:20}{ours} |{others[0]} | {'nothing as small' if best is None else str(best)}", flush=True)
    return won


def main() -> int:
    """Prints both parts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="part of a network's name; 'ties' for the first part alone")
    parser.add_argument("--bits", type=int, default=6)
    arguments = parser.parse_args()
    met = True
    with tempfile.TemporaryDirectory(prefix="pressroom-sharing-") as scratch:
        if arguments.only in ("", "ties"):
            met = ties(Path(scratch))
        if arguments.only == "ties":
            return 0 if met else 1
        names = [name for name in NETWORKS if arguments.only in name] if arguments.only else list(DEFAULT)
        print(f"{arguments.bits} bits; bytes, SQNR of weights and of outputs in dB")
        print(f"{'':20}{'one codebook for all':>25} |{'one for each layer':>25} | best of one for each no larger")
        won = sum(codebooks(name, arguments.bits, Path(scratch)) for name in names)
    print(f"one codebook for all wins at its size on {won} of {len(names)} networks")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
