"""Structured pruning and recovery: multiply-accumulates, measured latency and accuracy, ours and torch-pruning's.

    python -m tests.benchmarks.structured [--macs 0.4] [--reviews] [--images]

A residual network on MNIST and all-MiniLM-L6-v2 fine-tuned on Rotten Tomatoes, both as ONNX. Latency is the median of
onnxruntime's calls at batch 1 with one thread, original and smaller model interleaved; accuracy is that of the stored
artifact on all test rows. The peer prunes the convolutional network to the same number of multiply-accumulates and
recovers over as many epochs of the same rows from the same teacher.
"""

import argparse
import copy
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.benchmarks import structured_inputs as inputs
from tests.benchmarks import structured_peers
from tests.benchmarks.training_inputs import Split, accuracy, digits_of, write_digits, write_reviews
from tests.benchmarks.training_runs import learn, score, verdict
from workers.compression import data as datasets
from workers.compression.context import Context
from workers.compression.families.model import Feeds, Model
from workers.compression.registry import family
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.job import DatasetFields
from workers.compression.specs.messages import DatasetFile
from workers.compression.specs.steps.finetune import RecoverFinetune
from workers.compression.timing import time_side_by_side

LATENCY_OF_MACS, POINTS = 0.7, 0.01
CALLS = 400
IMAGE_ROWS, REVIEW_ROWS, REVIEW_TEST_ROWS = 6_000, 4_000, 2_000
IMAGE_RECOVERY: dict[str, Any] = {"epochs": 2, "batch_size": 64, "learning_rate": 1e-3, "validation": 0.0}
TEXT_RECOVERY: dict[str, Any] = {"epochs": 2, "batch_size": 16, "learning_rate": 5e-5, "validation": 0.0}


@dataclass(frozen=True)
class Outcome:
    """One side's artifact against the original."""

    macs: float
    latency: float
    before: float
    after: float
    rows: int

    def show(self, name: str) -> None:
        """A line of the table."""
        margin = 1.96 * float(np.sqrt(self.after * (1 - self.after) / self.rows))
        print(
            f"{name:22}{self.macs:>10.1%}{self.latency:>12.1%}{100 * self.before:>12.2f}"
            f"{100 * self.after:>10.2f} ± {100 * margin:.2f}"
        )


def images(folder: Path, macs: float) -> list[bool]:
    """The residual network by us and by the peer."""
    network = inputs.trained_resnet()
    split = write_digits(folder, train_rows=IMAGE_ROWS)
    original = inputs.write_images_onnx(network, folder / "resnet.onnx")
    made = learn(original, _recipe(macs, IMAGE_RECOVERY), split, folder / "ours")
    feeds = {"input": digits_of("t10k", inputs.DIGITS, 1)[0]}
    before = accuracy(network, digits_of("t10k", inputs.DIGITS))
    ours = _compared(_open(original, folder), _open(made.path, folder), feeds, (before, made.accuracy), 10_000)
    smaller = structured_peers.pruned(copy.deepcopy(network), torch.zeros(1, 1, 28, 28), macs)
    rows = tuple(torch.from_numpy(values) for values in digits_of("train", inputs.DIGITS, IMAGE_ROWS))
    spec = RecoverFinetune.model_validate(IMAGE_RECOVERY)
    structured_peers.recovered(smaller, network, (rows[0], rows[1]), spec)
    peer = inputs.write_images_onnx(smaller, folder / "peer.onnx")
    reached = accuracy(smaller, digits_of("t10k", inputs.DIGITS))
    theirs = _compared(_open(original, folder), _open(peer, folder), feeds, (before, reached), 10_000)
    print(f"residual network of 8 layers on MNIST, {IMAGE_ROWS} rows to recover on")
    return _table(ours, theirs)


def reviews(folder: Path, macs: float) -> list[bool]:
    """The transformer by us."""
    split = write_reviews(folder, REVIEW_ROWS, REVIEW_TEST_ROWS)
    network = inputs.trained_classifier(split, folder)
    original = inputs.write_classifier_onnx(network, folder, "classifier")
    made = learn(original, _recipe(macs, TEXT_RECOVERY), split, folder / "ours_text")
    opened = _open(original, folder)
    tokens = np.random.default_rng(0).integers(1000, 20_000, (1, inputs.LENGTH))
    feeds = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
    before = score(opened, _rows(split, folder), opened.tokenizer_file())
    ours = _compared(opened, _open(made.path, folder), feeds, (before, made.accuracy), REVIEW_TEST_ROWS)
    print(f"all-MiniLM-L6-v2 on Rotten Tomatoes, {REVIEW_ROWS} rows to recover on, {inputs.LENGTH} tokens")
    return _table(ours, None)


def _recipe(macs: float, recovery: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"technique": "prune", "method": "structured", "macs": macs},
        {"technique": "finetune", "method": "recover", **recovery},
    ]


def _compared(first: Model, second: Model, feeds: Feeds, accuracies: tuple[float, float], rows: int) -> Outcome:
    times = time_side_by_side(first, second, ([feeds], [feeds]), CALLS)
    before, after = first.macs(feeds), second.macs(feeds)
    if not before or not after:
        raise ValueError("multiply-accumulates cannot be counted")
    return Outcome(1 - after / before, 1 - 1 / times.ratio(), *accuracies, rows)


def _table(ours: Outcome, theirs: Outcome | None) -> list[bool]:
    print(f"{'':22}{'fewer MACs':>10}{'less time':>12}{'before %':>12}{'after %':>10}")
    ours.show("pressroom")
    if theirs is not None:
        theirs.show("torch-pruning")
    fast, good = ours.latency >= LATENCY_OF_MACS * ours.macs, ours.after >= ours.before - POINTS
    print(f"bar: latency falls by at least {LATENCY_OF_MACS} of the MAC cut: {verdict(fast)}")
    print(f"bar: accuracy within {100 * POINTS:.0f} point of the original's: {verdict(good)}\n")
    return [fast, good]


def _open(path: Path, folder: Path) -> Model:
    scratch = Path(tempfile.mkdtemp(dir=folder))
    return family(ModelFormat.ONNX).open_model(path, Context(scratch=scratch))


def _rows(split: Split, folder: Path) -> DatasetFile:
    found = datasets.inspect(split.test, split.test.name, DatasetFields(), folder)
    return DatasetFile(path=str(split.test), format=found.format)


def main() -> int:
    """1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--macs", type=float, default=0.4, help="share of the multiply-accumulates to remove")
    parser.add_argument("--images", action="store_true", help="the convolutional network alone")
    parser.add_argument("--reviews", action="store_true", help="the transformer alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    held: list[bool] = []
    with tempfile.TemporaryDirectory(prefix="pressroom-structured-") as name:
        if options.images or not options.reviews:
            held += images(Path(name), options.macs)
        if options.reviews or not options.images:
            held += reviews(Path(name), options.macs)
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
