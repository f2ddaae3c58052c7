"""Labelled data of the zoo cut into train and test files, and small networks for it: what trainings are measured on."""

import bz2
import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from app.cli.zoo import fetch

SPLIT_SEED = 0
TEST_SHARE = 0.25
Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Split:
    """Files of rows to learn from and of rows to judge by."""

    train: Path
    test: Path


@lru_cache
def reviews() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Rotten Tomatoes: train and test rows of text and ``fresh`` or ``rotten``, shuffled.

    No movie is in both parts, since reviews of one movie share its names. Plots and repeated texts are left out.
    """
    path = fetch("sentiment") / "rotten_tomatoes_corpus_full.csv.bz2"
    with bz2.open(path, "rt", encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["category"] in ("fresh", "rotten")]
    once = {row["text"].strip(): row for row in rows}
    random = np.random.default_rng(SPLIT_SEED)
    movies = sorted({row["movie_name"] for row in once.values()})
    held_out = set(random.permutation(movies)[: round(TEST_SHARE * len(movies))].tolist())
    parts: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
    for text in random.permutation(sorted(once)).tolist():
        parts[once[text]["movie_name"] in held_out].append((text, once[text]["category"]))
    return parts


def write_reviews(folder: Path, train_rows: int, test_rows: int) -> Split:
    """So many rows of each part as JSON lines of ``text`` and ``target``."""
    train, test = reviews()
    split = Split(folder / "reviews_train.jsonl", folder / "reviews_test.jsonl")
    for path, rows in ((split.train, train[:train_rows]), (split.test, test[:test_rows])):
        lines = (json.dumps({"text": text, "target": category}) for text, category in rows)
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return split


@lru_cache
def mnist(part: str) -> Arrays:
    """Images [n, 1, 28, 28] float32 in 0..1 and digits [n] int64 of ``train`` or ``t10k``, in a seeded order."""
    folder = fetch("mnist")
    images = np.fromfile(folder / f"{part}-images-idx3-ubyte", np.uint8, offset=16).reshape(-1, 1, 28, 28)
    digits = np.fromfile(folder / f"{part}-labels-idx1-ubyte", np.uint8, offset=8).astype(np.int64)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(digits))
    return images[order].astype(np.float32) / 255, digits[order]


def digits_of(part: str, chosen: Sequence[int], rows: int | None = None) -> Arrays:
    """Images of the chosen digits, labelled by their place among the chosen ones."""
    images, digits = mnist(part)
    places = np.flatnonzero(np.isin(digits, chosen))[:rows]
    return images[places], np.searchsorted(np.array(chosen), digits[places])


def write_digits(
    folder: Path, chosen: Sequence[int] = tuple(range(10)), train_rows: int | None = None, name: str = "mnist"
) -> Split:
    """MNIST of some digits, ascending, as arrays ``input`` and ``target``; all test rows of these digits."""
    split = Split(folder / f"{name}_train.npz", folder / f"{name}_test.npz")
    for path, (images, labels) in (
        (split.train, digits_of("train", chosen, train_rows)),
        (split.test, digits_of("t10k", chosen)),
    ):
        np.savez(path, input=images, target=labels)
    return split


def write_unlabelled(folder: Path, chosen: Sequence[int], rows: int) -> Path:
    """Training images of some digits as ``input`` alone."""
    path = folder / "unlabelled.npz"
    np.savez(path, input=digits_of("train", chosen, rows)[0])
    return path


def lenet(classes: int) -> nn.Sequential:
    """LeNet-5 with ReLU and max-pooling (LeCun et al. 1998), on [n, 1, 28, 28]: 61,706 parameters for ten classes."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes),
    )  # fmt: skip


def student(classes: int) -> nn.Sequential:
    """A thirtieth of LeNet-5, on [n, 1, 28, 28]: two strided convolutions, 2,202 parameters for ten classes."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=2), nn.ReLU(), nn.Conv2d(4, 8, 5, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(128, classes),
    )  # fmt: skip


def fit(
    network: nn.Module,
    rows: Arrays,
    *,
    epochs: int,
    seed: int,
    learning_rate: float = 2e-3,
    batch_size: int = 64,
    weight_decay: float = 0.01,
) -> nn.Module:
    """Plain AdamW with a cosine schedule, in place; how the networks that benchmarks start from are trained."""
    images, labels = torch.from_numpy(rows[0]), torch.from_numpy(rows[1])
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=weight_decay)
    random = torch.Generator().manual_seed(seed)
    batches = -(-len(labels) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
    network.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels), generator=random).split(batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[chosen]), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def accuracy(network: nn.Module, rows: Arrays) -> float:
    """Share of rows whose greatest output is the label's."""
    with torch.inference_mode():
        guesses = network(torch.from_numpy(rows[0])).argmax(dim=1).numpy()
    return float(np.mean(guesses == rows[1]))


def write_pt2(network: nn.Module, path: Path) -> Path:
    """The network as a ``torch.export`` archive with a symbolic batch axis."""
    shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},)
    program = torch.export.export(network.eval(), (torch.zeros(2, 1, 28, 28),), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path
