"""Half the weights of a sentence encoder's layers: ours beside what llm-compressor makes of them.

    python -m tests.benchmarks.pruning [--rows N]

all-MiniLM-L6-v2, its 36 linear layers (tables stay), without a pattern and in 2:4; every path sees the same 128
sentences of news. Judged by the mean cosine of mean-pooled outputs with the float model's on other news and on reviews,
and by the rank correlation of word pairs' similarities with people's (WordSim-353 and SimLex-999). llm-compressor's
magnitude pruning works by the epochs of a training; magnitude is ours, which a test holds to be what torch prunes.
"""

import argparse
import csv
import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from tokenizers import Tokenizer

from app.cli.zoo import fetch
from tests.benchmarks.peer_environments import PeerUnavailable, prepared
from tests.benchmarks.weight_only import Bench, feeds_of, outputs
from workers.compression.context import Context
from workers.compression.families.model import Array
from workers.compression.registry import handler_for
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.prune_weights import MagnitudePrune, SparseGptPrune, WandaPrune, WeightPrune

SCRIPT = Path(__file__).with_name("peer_scripts") / "llmcompressor_prune.py"
WORD_TOKENS = 8
LAYERS = ["re:.*encoder.*(query|key|value|dense)$"]
PATTERNS = ("unstructured", "2:4")
OURS: tuple[tuple[type[WeightPrune], dict[str, object]], ...] = (
    (MagnitudePrune, {"scope": "layer"}),
    (WandaPrune, {}),
    (WandaPrune, {"fit": True}),
    (SparseGptPrune, {"fit": False}),
    (SparseGptPrune, {}),
)
PEERS: tuple[tuple[str, str], ...] = (
    ("wanda", "basic"),
    ("wanda", "sequential"),
    ("sparsegpt", "basic"),
    ("sparsegpt", "sequential"),
)
"""Methods, and how llm-compressor runs the calibration rows: through the float layers, or through those pruned so
far."""


@dataclass(frozen=True)
class Result:
    """What came of one path: the share of zeros, the mean cosine, and rank correlations of two sets of word pairs."""

    name: str
    zeros: float
    cosine: float
    words: tuple[float, float]


class PruningBench(Bench):
    """The same model and sentences, and word pairs."""

    def __init__(self, folder: Path, rows: int) -> None:
        super().__init__(folder, rows)
        tokenizer = Tokenizer.from_file(str(fetch("minilm-l6-onnx") / "tokenizer.json"))
        tokenizer.enable_truncation(WORD_TOKENS)
        tokenizer.enable_padding(length=WORD_TOKENS)
        pairs = [_pairs("wordsim353.tsv"), _pairs("simlex999.txt")]
        self.said = [np.array([score for _, _, score in own]) for own in pairs]
        texts = [word for own in pairs for left, right, _ in own for word in (left, right)]
        self.words = feeds_of(tokenizer, texts)
        with np.load(folder / "feeds.npz") as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
        arrays |= {f"words/{name}": values for name, values in self.words.items()}
        np.savez(folder / "feeds.npz", **arrays)

    def judged(self, name: str, zeros: float, sentences: Array, words: Array) -> Result:
        mask = self.words["attention_mask"][..., None]
        vectors = (words * mask).sum(axis=1) / mask.sum(axis=1)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        alike = (unit[::2] * unit[1::2]).sum(axis=1)
        ends = np.cumsum([len(said) for said in self.said])
        parts = zip(np.split(alike, ends[:-1]), self.said, strict=True)
        first, second = (float(spearmanr(found, said).statistic) for found, said in parts)
        return Result(name, zeros, self.cosine(sentences), (first, second))

    def pruned(self, step: type[WeightPrune], fields: dict[str, object], pattern: str) -> Result:
        """Through the handler that jobs go through; the saved file is opened anew."""
        model = self.open(self.archive)
        tables = tuple(weight.name for weight in model.weights() if weight.role == "embedding")
        spec = step.model_validate({**fields, "pattern": pattern, "exclude": tables})
        context = Context(scratch=self.folder, calibration=self.calibration())
        handler_for(step, ModelFormat.ONNX)(model, spec, context).save(self.folder / "ours.onnx")
        made = self.open(self.folder / "ours.onnx")
        layers = [made.matrix(weight) for weight in made.weights() if weight.role != "embedding"]
        zeros = 1.0 - sum(map(np.count_nonzero, layers)) / sum(matrix.size for matrix in layers)
        fit = ", fitted" if getattr(spec, "fit", False) else ""
        return self.judged(
            f"pressroom {spec.method}{fit}", zeros, outputs(made, self.evaluation), outputs(made, self.words)
        )

    def by_llmcompressor(self, pattern: str) -> Iterator[Result]:
        """Each path in a run of its own, for some may fail."""
        structure = "0:0" if pattern == "unstructured" else pattern
        for modifier, pipeline in PEERS:
            fields = {"sparsity": 0.5, "mask_structure": structure, "targets": LAYERS}
            name = f"llm-compressor {modifier}, {pipeline}"
            paths = json.dumps({name: {"modifier": modifier, "fields": fields, "pipeline": pipeline}})
            made = self.folder / "peer.npz"
            try:
                prepared("llm-compressor").run(SCRIPT, fetch("minilm-l6-hf"), self.folder / "feeds.npz", made, paths)
            except PeerUnavailable as failure:
                print(f"{name:40}does not run: {str(failure)[-200:]}", flush=True)
                continue
            with np.load(made) as found:
                hidden = [found[f"{name}/{kind}"] for kind in ("evaluation", "words")]
                yield self.judged(name, float(found[f"{name}/zeros"].mean()), *hidden)


def _pairs(name: str) -> list[tuple[str, str, float]]:
    with (fetch("sentence-pairs") / name).open(encoding="utf-8") as lines:
        rows = csv.reader((line for line in lines if not line.startswith("#")), delimiter="\t")
        return [(row[0], row[1], float(row[2])) for row in rows]


def show(result: Result) -> Result:
    words = "".join(f"{value:10.4f}" for value in result.words)
    print(f"{result.name:40}{result.zeros:9.4%}{result.cosine:9.5f}{words}", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=192)
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as name:
        bench = PruningBench(Path(name), arguments.rows)
        float_model = bench.open(bench.archive)
        show(bench.judged("float", 0.0, *(outputs(float_model, rows) for rows in (bench.evaluation, bench.words))))
        for pattern in PATTERNS:
            print(f"\n{pattern:40}{'zeros':>9}{'cosine':>9}{'WordSim':>10}{'SimLex':>10}")
            ours = [show(bench.pruned(step, fields, pattern)) for step, fields in OURS]
            theirs = [show(result) for result in bench.by_llmcompressor(pattern)]
            best = max(ours, key=lambda result: result.cosine)
            peer = max(theirs, key=lambda result: result.cosine, default=None)
            met = peer is not None and best.cosine >= peer.cosine
            print(
                f"bar: {pattern}, half the weights: fidelity of magnitude, Wanda and SparseGPT as llm-compressor gives "
                f"them: {'met' if met else 'missed'}: {best.name} {best.cosine:.5f}, "
                f"{f'{peer.name} {peer.cosine:.5f}' if peer else 'no peer ran'}"
            )


if __name__ == "__main__":
    main()
