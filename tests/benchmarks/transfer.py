"""Transfer against training from scratch, which gets five times the epochs: ours and plain PyTorch, three seeds.

    python -m tests.benchmarks.transfer [--reviews]

Digits 5 to 9 of MNIST from a LeNet-5 that was trained on 0 to 4. With ``--reviews`` also Rotten Tomatoes from
all-MiniLM-L6-v2 against the same architecture with random weights, one seed. Both arms have the same rows, batches and
rate; every artifact is judged on all test rows.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.bert.modeling_bert import BertForSequenceClassification

from app.cli.zoo import fetch
from tests.benchmarks.inputs import minilm_directory
from tests.benchmarks.training_inputs import (
    Arrays,
    accuracy,
    digits_of,
    fit,
    lenet,
    write_digits,
    write_pt2,
    write_reviews,
)
from tests.benchmarks.training_peers import fine_tune
from tests.benchmarks.training_runs import learn, summary, verdict
from workers.compression.specs.containers.archives import stored_zip
from workers.compression.specs.steps.finetune import FullFinetune

KNOWN, NEW = range(5), range(5, 10)
ROWS = 200
SEEDS = 3
SCRATCH_EPOCHS = 25
STEP: dict[str, Any] = {
    "technique": "finetune", "method": "full", "batch_size": 4, "learning_rate": 4e-3, "validation": 0.0,
}  # fmt: skip
REVIEW_ROWS = 1000
REVIEW_EPOCHS = 5
Arms = tuple[list[float], list[float]]


def digits(folder: Path, threads: int) -> bool:
    """Both arms by us and by plain PyTorch; whether our transfer reaches what our training from scratch reaches."""
    torch.manual_seed(0)
    source = fit(lenet(len(KNOWN)), digits_of("train", KNOWN), epochs=6, seed=0)
    known = write_pt2(source, folder / "known.pt2")
    split = write_digits(folder, NEW, ROWS, "new")
    rows, test = digits_of("train", NEW, ROWS), digits_of("t10k", NEW)
    ours: Arms = ([], [])
    plain: Arms = ([], [])
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        raw = lenet(len(NEW))
        untrained = write_pt2(raw, folder / f"raw{seed}.pt2")
        arms = (
            (untrained, {"epochs": SCRATCH_EPOCHS, "head": "keep"}),
            (known, {"epochs": SCRATCH_EPOCHS // 5, "head": "replace"}),
        )
        for arm, (model, fields) in enumerate(arms):
            place = folder / f"ours{seed}{arm}"
            ours[arm].append(learn(model, [STEP | fields], split, place, seed=seed, threads=threads).accuracy)
        plain[0].append(_plain(raw, rows, test, SCRATCH_EPOCHS, seed))
        moved = lenet(len(KNOWN))
        moved.load_state_dict(source.state_dict())
        moved[-1] = nn.Linear(84, len(NEW))
        plain[1].append(_plain(moved, rows, test, SCRATCH_EPOCHS // 5, seed))
    print(f"MNIST digits 5-9, {ROWS} rows, LeNet-5 trained on 0-4; accuracy %, {SEEDS} seeds")
    return _table(SCRATCH_EPOCHS, ours, plain)


def _plain(network: nn.Module, rows: Arrays, test: Arrays, epochs: int, seed: int) -> float:
    spec = FullFinetune.model_validate(STEP | {"epochs": epochs})
    fine_tune(network, (torch.from_numpy(rows[0]), torch.from_numpy(rows[1])), spec, seed)
    return accuracy(network, test)


def reviews(folder: Path, threads: int) -> bool:
    """Both arms by us, one seed."""
    split = write_reviews(folder, REVIEW_ROWS, REVIEW_ROWS)
    step = STEP | {"batch_size": 32, "learning_rate": 1e-4}
    scratch, transfer = (
        learn(model, [step | {"epochs": epochs}], split, folder / f"review{epochs}", threads=threads).accuracy
        for model, epochs in ((random_minilm(folder), REVIEW_EPOCHS), (minilm_directory(folder), REVIEW_EPOCHS // 5))
    )
    print(f"Rotten Tomatoes, {REVIEW_ROWS} rows, all-MiniLM-L6-v2; accuracy %, 1 seed")
    return _table(REVIEW_EPOCHS, ([scratch], [transfer]))


def random_minilm(folder: Path) -> Path:
    """The architecture of all-MiniLM-L6-v2 as a classifier of two classes with random weights, zipped."""
    torch.manual_seed(0)
    known, target = fetch("minilm-l6-hf"), folder / "random"
    BertForSequenceClassification(BertConfig.from_pretrained(known, num_labels=2)).save_pretrained(target)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (target / name).write_bytes((known / name).read_bytes())
    stored_zip(target, folder / "random.zip")
    return folder / "random.zip"


def _table(epochs: int, ours: Arms, plain: Arms | None = None) -> bool:
    """Prints the arms side by side; whether our transfer's mean is not below that of our training from scratch."""
    print(f"{'':28}{f'{epochs} epochs':>16}{f'{epochs // 5} epochs':>16}")
    print(f"{'':28}{'from scratch':>16}{'transfer':>16}")
    for name, arms in (("pressroom", ours), ("plain PyTorch", plain)):
        if arms is not None:
            print(f"{name:28}{summary(arms[0]):>16}{summary(arms[1]):>16}")
    reached = statistics.mean(ours[1]) >= statistics.mean(ours[0])
    print(f"bar: transfer reaches in a fifth of the epochs what training from scratch reaches: {verdict(reached)}\n")
    return reached


def main() -> int:
    """1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--reviews", action="store_true", help="also a language model, which takes minutes")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="pressroom-transfer-") as name:
        held = [digits(Path(name), options.threads)]
        if options.reviews:
            held.append(reviews(Path(name), options.threads))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
