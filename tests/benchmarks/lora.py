"""LoRA against full fine-tuning, and a linear probe: ours, transformers with peft, and scikit-learn on the same rows.

    python -m tests.benchmarks.lora [--rows N --test-rows N --epochs N --threads N]

Rotten Tomatoes from all-MiniLM-L6-v2: is a review fresh or rotten? No movie is in both parts. Every artifact is read
back and judged by our harness. Takes some minutes per row of the table.
"""

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.inputs import minilm_directory
from tests.benchmarks.peers import Figures, Subject
from tests.benchmarks.text_training_peers import peft_lora, sklearn_probe, trainer_full
from tests.benchmarks.training_inputs import write_reviews
from tests.benchmarks.training_runs import Learned, learn, verdict

POINTS = 0.01
TRAINABLE = 0.05
BATCH_SIZE = 32
Peer = Callable[[Subject], Figures]


def arms(epochs: float) -> tuple[tuple[str, dict[str, Any], str, Peer], ...]:
    """Name, step, the peer's name and the peer."""
    shared = {"technique": "finetune", "batch_size": BATCH_SIZE, "epochs": epochs, "validation": 0.0}
    full = shared | {"method": "full", "learning_rate": 1e-4}
    lora = shared | {"method": "lora", "learning_rate": 1e-3, "rank": 8, "alpha": 16.0}
    head = shared | {"method": "head", "learning_rate": 5e-3, "epochs": 5 * epochs}
    return (
        ("full", full, "transformers Trainer", trainer_full),
        ("lora", lora, "peft LoRA, Trainer", peft_lora),
        ("head", head, "scikit-learn LogisticRegression", sklearn_probe),
    )


def trained_share(learned: Learned) -> float:
    """Share of the weights that learnt, as the step says in its own words."""
    found = re.search(r"([\d,]+) of ([\d,]+) parameters trained", learned.made.steps[0].changed)
    if found is None:
        raise ValueError(f"no count in {learned.made.steps[0].changed!r}")
    learning, total = (int(count.replace(",", "")) for count in found.groups())
    return learning / total


def run(folder: Path, options: argparse.Namespace) -> bool:
    """Prints a row per arm and side as it comes in; whether LoRA holds both its bars."""
    split = write_reviews(folder, options.rows, options.test_rows)
    model = minilm_directory(folder)
    print(f"Rotten Tomatoes, {options.rows} rows, {options.epochs:g} epochs, {options.test_rows} test rows, 1 seed")
    print(f"{'':42}{'accuracy %':>12}{'trained':>10}{'seconds':>9}", flush=True)
    ours: dict[str, Learned] = {}
    for name, step, peer_name, peer in arms(options.epochs):
        if options.bar_only and name == "head":
            continue
        ours[name] = learn(model, [step], split, folder / name, threads=options.threads)
        share = f"{100 * trained_share(ours[name]):.2f} %"
        _row(f"pressroom {name}", ours[name].accuracy, ours[name].seconds, share)
        if options.bar_only:
            continue
        _peer_row(peer_name, peer, Subject(folder / f"{name} peer", model, split.test, step, "accuracy", split.train))
    return _bars(ours)


def _bars(ours: dict[str, Learned]) -> bool:
    lost = ours["full"].accuracy - ours["lora"].accuracy
    share = trained_share(ours["lora"])
    held = lost <= POINTS and share < TRAINABLE
    print(f"bar: LoRA within 1 point of full fine-tuning: {100 * lost:.2f} points lost: {verdict(lost <= POINTS)}")
    print(f"bar: LoRA trains less than 5 % of the weights: {100 * share:.2f} %: {verdict(share < TRAINABLE)}")
    return held


def _peer_row(name: str, peer: Peer, subject: Subject) -> None:
    subject.folder.mkdir()
    started = time.perf_counter()
    figures = peer(subject)
    _row(name, figures.value or 0.0, time.perf_counter() - started, "")


def _row(name: str, accuracy: float, seconds: float, share: str) -> None:
    print(f"{name:42}{100 * accuracy:12.2f}{share:>10}{seconds:9.0f}", flush=True)


def main() -> int:
    """1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--test-rows", type=int, default=2000)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--bar-only", action="store_true", help="full fine-tuning and LoRA by us, no peers, no probe")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="pressroom-lora-") as name:
        return 0 if run(Path(name), options) else 1


if __name__ == "__main__":
    sys.exit(main())
