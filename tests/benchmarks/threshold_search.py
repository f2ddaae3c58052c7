"""The sparsity that a drop of 0.01 allows: found, against the best that uniform and global magnitude pruning reach.

    python -m tests.benchmarks.threshold_search [--only mnist]

All choose by the same selection rows and are held to the same confirmation rows; the drop is then told on rows that
none of them saw. Uniform and global pruning take the best point of a grid that keeps within the limit on both.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from tests.benchmarks import inputs
from tests.benchmarks.deep_compression_inputs import lenet_300_100
from tests.benchmarks.qat_inputs import write_onnx
from tests.benchmarks.training_inputs import fit, mnist, reviews
from workers.compression.context import Context
from workers.compression.data import Dataset, open_dataset
from workers.compression.engine import perform
from workers.compression.families.weights import CompressibleModel, Floats, Weight, as_compressible
from workers.compression.pruning.masks import mask, pooled_masks
from workers.compression.registry import family, handler_for
from workers.compression.specs.containers.sniffing import sniff_dataset, sniff_model
from workers.compression.specs.job import Evaluation
from workers.compression.specs.messages import DatasetFile, InspectModel, ModelInspection
from workers.compression.specs.steps.prune_weights import MagnitudePrune
from workers.compression.tolerance.drops import JudgingRows

MAX_DROP = 0.01
TRAINED_ON = 50_000
PARTS = (0.0, 0.25, 0.5, 1.0)

Masks = Callable[[Sequence[Floats], float], list[np.ndarray]]


@dataclass(frozen=True)
class Case:
    """A model, rows of three kinds, and the sparsities that the peers try."""

    name: str
    metric: str
    write_model: Callable[[Path], Path]
    rows: Callable[[Path], tuple[Dataset, Dataset, Dataset]]
    grid: tuple[float, ...]


def lenet(folder: Path) -> Path:
    """LeNet-300-100, trained on the first 50,000 training rows only."""
    images, digits = mnist("train")
    torch.manual_seed(0)
    network = fit(lenet_300_100(), (images[:TRAINED_ON], digits[:TRAINED_ON]), epochs=6, seed=0, learning_rate=1e-3)
    return write_onnx(network, folder / "lenet.onnx")


def mnist_rows(folder: Path) -> tuple[Dataset, Dataset, Dataset]:
    """The 10,000 training rows that the network did not learn from, halved, and the 10,000 test rows."""
    images, digits = mnist("train")
    np.savez(folder / "held_out.npz", input=images[TRAINED_ON:], target=digits[TRAINED_ON:])
    images, digits = mnist("t10k")
    np.savez(folder / "test.npz", input=images, target=digits)
    held_out, test = folder / "held_out.npz", folder / "test.npz"
    return opened(held_out, (0.0, 0.5)), opened(held_out, (0.5, 1.0)), opened(test, (0.0, 1.0))


def review_rows(folder: Path) -> tuple[Dataset, Dataset, Dataset]:
    """Texts of reviews without labels: a quarter, a quarter and a half of 800."""
    path = folder / "reviews.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text, _ in reviews()[1][:800]), "utf-8")
    selection, confirmation, unseen = (opened(path, part) for part in pairwise(PARTS))
    return selection, confirmation, unseen


def opened(path: Path, part: tuple[float, float]) -> Dataset:
    """Some rows of a file."""
    return open_dataset(DatasetFile(path=str(path), format=sniff_dataset(path, path.name), part=part))


CASES = {
    "mnist": Case(
        "LeNet-300-100 on MNIST, ONNX", "accuracy", lenet, mnist_rows, tuple(np.arange(0.5, 0.96, 0.01).round(2))
    ),
    "minilm": Case(
        "all-MiniLM-L6-v2 on reviews, ONNX",
        "fidelity",
        inputs.minilm_onnx,
        review_rows,
        tuple(np.arange(0.1, 0.7, 0.02).round(2)),
    ),
}


def uniform(matrices: Sequence[Floats], share: float) -> list[np.ndarray]:
    """The same share of every weight."""
    return [mask(np.abs(matrix), share) for matrix in matrices]


def by_magnitude(matrices: Sequence[Floats], share: float) -> list[np.ndarray]:
    """The smallest of all weights together."""
    return pooled_masks([np.abs(matrix) for matrix in matrices], share)


class Bench:
    """One case, opened."""

    def __init__(self, case: Case, folder: Path) -> None:
        self._folder = folder
        path = case.write_model(folder)
        inspected = perform(InspectModel(path=str(path), filename=path.name), folder, Context(scratch=folder))
        assert isinstance(inspected, ModelInspection)
        self._path = folder / inspected.clean if inspected.clean else path
        self._selection, self._confirmation, unseen = case.rows(folder)
        self._metric = case.metric
        self.model = self.open()
        self.weights = self.model.weights()
        parts = (self._selection, self._confirmation, unseen)
        judging = (JudgingRows(self.model, self.model.run, part, case.metric) for part in parts)
        self.selection, self.confirmation, self.unseen = judging

    def open(self) -> CompressibleModel:
        """The model as it was."""
        return as_compressible(family(sniff_model(self._path)).open_model(self._path, Context(scratch=self._folder)))

    def best_of_grid(self, grid: Sequence[float], masks: Masks) -> tuple[float, float]:
        """The largest sparsity within the limit on selection and confirmation rows, and its drop on the others."""
        matrices = [self.model.matrix(weight) for weight in self.weights]
        best, drop = 0.0, 0.0
        for share in grid:
            values = self._pruned(masks(matrices, share))
            with self.model.varied(values) as run:
                selected = self.selection.drop(run).value
                if selected > 3 * MAX_DROP:
                    break
                if selected <= MAX_DROP and self.confirmation.drop(run).value <= MAX_DROP:
                    best, drop = share, self.unseen.drop(run).value
        return best, drop

    def _pruned(self, masks: Sequence[np.ndarray]) -> list[tuple[Weight, Floats]]:
        pairs = zip(self.weights, masks, strict=True)
        return [(weight, np.where(stays, self.model.matrix(weight), np.float32(0))) for weight, stays in pairs]

    def found(self) -> tuple[float, float]:
        """What the step finds, by itself, and its drop on the rows that it did not see."""
        context = Context(
            scratch=self._folder,
            selection=self._selection,
            confirmation=self._confirmation,
            evaluation=Evaluation(metric=self._metric, max_samples=5000),
        )
        model = self.open()
        made = handler_for(MagnitudePrune, model.format)(model, MagnitudePrune(max_drop=MAX_DROP), context)
        outcome = context.found
        assert outcome is not None
        print(
            f"found {outcome.sparsity:.2%} by {outcome.evaluations} trials: {self._metric} drops by "
            f"{outcome.selection.drop:.4f} on {outcome.selection.rows} selection rows and by "
            f"{outcome.confirmation.drop:.4f} on {outcome.confirmation.rows} confirmation rows "
            f"(looked at {outcome.confirmations} times)"
        )
        return outcome.sparsity, self.unseen.drop(made.run).value


def main() -> int:
    """One table per case; 1 if a bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=CASES)
    only = parser.parse_args().only
    missed = 0
    for key, case in CASES.items():
        if only not in (None, key):
            continue
        print(f"{case.name}, at most {MAX_DROP} of {case.metric}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(case, Path(folder))
            started = time.perf_counter()
            ours = bench.found()
            seconds = time.perf_counter() - started
            peers = {name: bench.best_of_grid(case.grid, way) for name, way in PEERS.items()}
        print(f"  {'found here':<18} {ours[0]:7.2%} zeros, drop on unseen rows {ours[1]:+.4f}, {seconds:.0f} s")
        for name, (share, drop) in peers.items():
            print(f"  {name:<18} {share:7.2%} zeros, drop on unseen rows {drop:+.4f}")
        met = ours[0] >= max(share for share, _ in peers.values()) and ours[1] <= MAX_DROP
        missed += not met
        print(
            f"bar: more zeros than the best of both, drop on unseen rows at most {MAX_DROP}: {_word(met)}", flush=True
        )
    return 1 if missed else 0


def _word(met: bool) -> str:
    return "met" if met else "missed"


PEERS: dict[str, Masks] = {"uniform magnitude": uniform, "global magnitude": by_magnitude}

if __name__ == "__main__":
    sys.exit(main())
