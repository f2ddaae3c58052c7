"""A small student with its teacher against the same student without: ours and a plain loop, three seeds.

    python -m tests.benchmarks.distillation

The teacher is a LeNet-5 trained on all of MNIST, the student has a thirtieth of its weights and few labelled rows. All
arms start from the same weights and make the same number of updates. The arm without labels sees ten times as many
rows, none of them labelled.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.training_inputs import (
    Split,
    accuracy,
    digits_of,
    fit,
    lenet,
    student,
    write_digits,
    write_pt2,
    write_unlabelled,
)
from tests.benchmarks.training_peers import distill, fine_tune, rows_of
from tests.benchmarks.training_runs import STUDENT, learn, summary, verdict
from workers.compression.specs.steps.distill import LogitsDistill
from workers.compression.specs.steps.finetune import FullFinetune

DIGITS = range(10)
ROWS = 500
MORE_ROWS = 10 * ROWS
EPOCHS = 60
SEEDS = 3
LOOP: dict[str, Any] = {"batch_size": 32, "learning_rate": 5e-3, "validation": 0.0}
ALONE: dict[str, Any] = LOOP | {"technique": "finetune", "method": "full", "head": "keep", "epochs": EPOCHS}
TAUGHT: dict[str, Any] = LOOP | {
    "technique": "distill", "method": "logits", "student": STUDENT, "temperature": 4.0, "epochs": EPOCHS,
}  # fmt: skip
LABEL_FREE: dict[str, Any] = TAUGHT | {"epochs": EPOCHS * ROWS / MORE_ROWS}
ARMS = (
    ("alone, labels", ALONE),
    ("taught, same labelled rows", TAUGHT),
    ("taught, 10x rows, no labels", LABEL_FREE),
)


def run(folder: Path, threads: int) -> bool:
    """All arms by us and by a plain loop; whether the taught student's mean is above by more than the spread."""
    torch.manual_seed(0)
    teacher = fit(lenet(10), digits_of("train", DIGITS), epochs=4, seed=0)
    taught_by = write_pt2(teacher, folder / "teacher.pt2")
    labelled = write_digits(folder, DIGITS, ROWS)
    split = {True: labelled, False: Split(write_unlabelled(folder, DIGITS, MORE_ROWS), labelled.test)}
    ours: list[list[float]] = [[] for _ in ARMS]
    plain: list[list[float]] = [[] for _ in ARMS]
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        start = student(10)
        raw = write_pt2(start, folder / f"student{seed}.pt2")
        for arm, (_, step) in enumerate(ARMS):
            rows = split[step is not LABEL_FREE]
            place = folder / f"ours{seed}{arm}"
            model, other = (raw, None) if step is ALONE else (taught_by, raw)
            learned = learn(model, [step], rows, place, seed=seed, student=other, threads=threads)
            ours[arm].append(learned.accuracy)
            plain[arm].append(_plain(start, teacher, step, rows.train, seed))
    print(f"MNIST, {ROWS} labelled rows, student of 2,202 weights, teacher LeNet-5 of 61,706", end=" ")
    print(f"({100 * accuracy(teacher, digits_of('t10k', DIGITS)):.2f}); accuracy %, {SEEDS} seeds")
    print(f"{'':30}{'pressroom':>16}{'plain loop':>16}")
    for (name, _), mine, theirs in zip(ARMS, ours, plain, strict=True):
        print(f"{name:30}{summary(mine):>16}{summary(theirs):>16}")
    held = [_beats(ours[arm], ours[0], ARMS[arm][0]) for arm in (1, 2)]
    return all(held)


def _plain(start: torch.nn.Module, teacher: torch.nn.Module, step: dict[str, Any], rows: Path, seed: int) -> float:
    network = student(10)
    network.load_state_dict(start.state_dict())
    if step is ALONE:
        fine_tune(network, rows_of(rows), FullFinetune.model_validate(step), seed)
    else:
        distill(network, teacher, rows_of(rows), LogitsDistill.model_validate(step), seed)
    return accuracy(network, digits_of("t10k", DIGITS))


def _beats(taught: list[float], alone: list[float], name: str) -> bool:
    gain = statistics.mean(taught) - statistics.mean(alone)
    spread = max(statistics.stdev(taught), statistics.stdev(alone))
    held = gain > spread
    print(f"bar: {name}: {100 * gain:+.2f} points over alone, spread {100 * spread:.2f}: {verdict(held)}")
    return held


def main() -> int:
    """1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="pressroom-distillation-") as name:
        return 0 if run(Path(name), options.threads) else 1


if __name__ == "__main__":
    sys.exit(main())
