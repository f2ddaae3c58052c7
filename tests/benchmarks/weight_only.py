"""Weights in 4 bits: ours beside every peer path that runs here, on all-MiniLM-L6-v2 and real sentences.

    python -m tests.benchmarks.weight_only [--rows N]

Every path is given the same model, the same calibration sentences (of news) and the same evaluation sentences (of other
news and of reviews); cosines are those of mean-pooled outputs with the float model's. Bits per weight count the group
metadata as stored. onnxruntime's tools leave embedding tables in float, so ours is held against them with tables left
out, and against NNCF with tables in.
"""

import argparse
import json
import logging
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from tokenizers import Tokenizer

from app.cli.zoo import fetch
from tests.benchmarks import weight_only_peers as peer_paths
from tests.benchmarks.inputs import minilm_onnx
from tests.benchmarks.peer_environments import PeerUnavailable
from workers.compression.context import Context
from workers.compression.data import Dataset, open_dataset
from workers.compression.families.model import Array
from workers.compression.families.onnx.family import open_model
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.form_sizes import uniform_bits
from workers.compression.registry import handler_for
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import DatasetFile
from workers.compression.specs.steps.quantize_weights import WeightOnlyQuantize

LENGTH = 64
CALIBRATION_ROWS = 128
MOST_BYTES = 12_500_000
LEAST_COSINE = 0.964
PRODUCTS: tuple[dict[str, object], ...] = (
    {"algorithm": "rtn", "scheme": "symmetric"},
    {"algorithm": "rtn"},
    {"algorithm": "hqq"},
    {"algorithm": "awq"},
    {"algorithm": "gptq", "scheme": "symmetric"},
    {"algorithm": "gptq"},
)
WHOLE: tuple[dict[str, object], ...] = (
    {"algorithm": "rtn"},
    {"algorithm": "rtn", "group_size": 64},
    {"algorithm": "gptq", "scheme": "symmetric"},
    {"algorithm": "gptq"},
    {"algorithm": "gptq", "group_size": 64},
    {"algorithm": "gptq", "group_size": 128},
)


@dataclass(frozen=True)
class Result:
    """One path: bytes of its file, stored bits per weight of what it quantizes, and the mean cosine."""

    name: str
    size: int
    bits: float
    cosine: float


class Bench:
    """The model, the sentences, and what the float model makes of them."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder = folder
        self.archive = minilm_onnx(folder)
        self.plain = fetch("minilm-l6-onnx") / "model.onnx"
        texts = fetch("sentence-pairs")
        reviews = (texts / "pang_lee_polarity.cor").read_text("utf-8", "replace").splitlines()
        reviews = [line.partition(" ")[2].strip() for line in reviews]
        news = sentences(texts / "lee.cor")
        drawn = [np.random.default_rng(0).permutation(part)[: rows // 2] for part in (news, reviews)]
        calibration = np.random.default_rng(0).permutation(sentences(texts / "lee_background.cor"))[:CALIBRATION_ROWS]
        tokenizer = Tokenizer.from_file(str(fetch("minilm-l6-onnx") / "tokenizer.json"))
        tokenizer.enable_truncation(LENGTH)
        tokenizer.enable_padding(length=LENGTH)
        self.evaluation = feeds_of(tokenizer, [str(text) for part in drawn for text in part])
        lines = [json.dumps({"text": str(text)}) for text in calibration]
        (folder / "calibration.jsonl").write_text("\n".join(lines), "utf-8")
        parts = {"evaluation": self.evaluation, "calibration": feeds_of(tokenizer, [str(text) for text in calibration])}
        arrays = {f"{kind}/{name}": values for kind, feeds in parts.items() for name, values in feeds.items()}
        np.savez(folder / "feeds.npz", **arrays)
        self.exact = self.pooled(outputs(self.open(self.archive), self.evaluation))

    def open(self, path: Path) -> OnnxModel:
        return open_model(path, Context(scratch=self.folder))

    def calibration(self) -> Dataset:
        return open_dataset(DatasetFile(path=str(self.folder / "calibration.jsonl"), format=DatasetFormat.JSONL))

    def pooled(self, hidden: Array) -> Array:
        mask = self.evaluation["attention_mask"][..., None]
        return (hidden * mask).sum(axis=1) / mask.sum(axis=1)

    def cosine(self, hidden: Array) -> float:
        found = self.pooled(hidden)
        scale = np.linalg.norm(found, axis=1) * np.linalg.norm(self.exact, axis=1)
        return float(np.mean((found * self.exact).sum(axis=1) / scale))

    def ours(self, fields: dict[str, object], *, embeddings: bool) -> Result:
        """Through the handler that jobs go through; the saved file is opened anew."""
        spec = WeightOnlyQuantize(bits=4, embeddings=embeddings, **fields)
        model = self.open(self.archive)
        weights = [weight for weight in model.weights() if embeddings or weight.role != "embedding"]
        kinds = [Blocks.of_matrix(weight.matrix_shape, spec.granularity, spec.group_size) for weight in weights]
        bits = sum(uniform_bits(blocks, 4, spec.scheme) for blocks in kinds) / sum(weight.size for weight in weights)
        context = Context(scratch=self.folder, calibration=self.calibration())
        handler_for(WeightOnlyQuantize, ModelFormat.ONNX)(model, spec, context).save(self.folder / "ours.onnx")
        made = self.open(self.folder / "ours.onnx")
        name = f"pressroom {spec.algorithm}, {spec.scheme}, g{spec.group_size}"
        size = (self.folder / "ours.onnx").stat().st_size
        return Result(name, size, bits, self.cosine(outputs(made, self.evaluation)))

    def onnxruntime(self, name: str) -> Result:
        made = peer_paths.matmul_nbits(self.plain, peer_paths.ORT_PATHS[name])
        onnx.save(made.proto, self.folder / "peer.onnx")
        model = OnnxModel(made.proto)
        return Result(
            name,
            (self.folder / "peer.onnx").stat().st_size,
            made.bits_per_weight,
            self.cosine(outputs(model, self.evaluation)),
        )

    def nncf(self, name: str) -> Result:
        options = peer_paths.NNCF_PATHS[name]
        size = peer_paths.nncf(self.plain, self.folder / "feeds.npz", self.folder / "outputs.npy", options)
        group = int(str(options["group_size"]))
        bits = 4 + 16 / group + (4 / group if options["mode"] == "INT4_ASYM" else 0)
        return Result(name, size, bits, self.cosine(np.load(self.folder / "outputs.npy")))


def sentences(path: Path) -> list[str]:
    parts = re.split(r"(?<=[.!?])\s+", path.read_text("utf-8", "replace"))
    return [part.strip() for part in parts if 30 < len(part.strip()) < 250]


def feeds_of(tokenizer: Tokenizer, texts: list[str]) -> dict[str, Array]:
    encoded = tokenizer.encode_batch(texts)
    ids, mask = (np.array([getattr(row, kind) for row in encoded]) for kind in ("ids", "attention_mask"))
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def outputs(model: OnnxModel, feeds: dict[str, Array]) -> Array:
    count = len(feeds["input_ids"])
    parts = [{name: values[start : start + 16] for name, values in feeds.items()} for start in range(0, count, 16)]
    return np.concatenate([model.run(part)[0] for part in parts])


def show(result: Result) -> Result:
    print(f"{result.name:44}{result.size:12,}{result.bits:8.3f}{result.cosine:9.5f}", flush=True)
    return result


def held_against(ours: Iterable[Result], peers: Iterable[Result]) -> bool:
    """For each peer, the best of ours that takes no more bits per weight."""
    met = True
    for peer in peers:
        fitting = [own for own in ours if own.bits <= peer.bits]
        best = max(fitting, key=lambda own: own.cosine) if fitting else None
        won = best is not None and best.cosine >= peer.cosine
        met = met and won
        print(f"  {peer.name}: {'met' if won else 'missed'} by {best.name if best else 'none of ours'}")
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=192)
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), arguments.rows)
        print(f"{'tables in float':44}{'bytes':>12}{'bits/w':>8}{'cosine':>9}")
        products = [show(bench.ours(fields, embeddings=False)) for fields in PRODUCTS]
        by_ort = [show(bench.onnxruntime(path)) for path in peer_paths.ORT_PATHS]
        print("tables in 4 bits too")
        whole = [show(bench.ours(fields, embeddings=True)) for fields in WHOLE]
        by_nncf = []
        for path in peer_paths.NNCF_PATHS:
            try:
                by_nncf.append(show(bench.nncf(path)))
            except PeerUnavailable as failure:
                print(f"{path:44}does not run: {str(failure)[-100:]}")
        first = held_against(products, by_ort)
        second = held_against(whole, by_nncf) and bool(by_nncf)
        print(
            f"bar: cosine of every peer path at its bits per weight or fewer: {'met' if first and second else 'missed'}"
        )
        small = [own for own in whole if own.size <= MOST_BYTES and own.cosine > LEAST_COSINE]
        best = max(small, key=lambda own: own.cosine, default=None)
        words = f"met: {best.name}, {best.size:,} bytes, {best.cosine:.5f}" if best else "missed"
        print(f"bar: all of it in {MOST_BYTES:,} bytes with cosine above {LEAST_COSINE}: {words}")


if __name__ == "__main__":
    main()
