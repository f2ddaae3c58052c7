"""The two networks of Deep Compression's first tables, trained on MNIST and kept for the next run.

They lie in ``PRESSROOM_BENCHMARKS``, else in the user's cache, under a digest of how they were trained.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from tests.benchmarks.qat_inputs import write_onnx
from tests.benchmarks.training_inputs import SPLIT_SEED, fit, mnist


def lenet_300_100() -> nn.Sequential:
    """784, 300, 100, 10 on [n, 1, 28, 28]: 266,610 parameters (LeCun et al. 1998)."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def lenet_5() -> nn.Sequential:
    """Caffe's LeNet-5, which the literature on pruning means, on [n, 1, 28, 28]: 431,080 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip


@dataclass(frozen=True)
class Training:
    """How a float network comes about.

    Args:
        build: The network with the weights it is born with.
        epochs: Over all 60,000 training rows.
    """

    build: Callable[[], nn.Module]
    epochs: int
    learning_rate: float = 2e-3
    batch_size: int = 128
    weight_decay: float = 0.1


TRAININGS = {
    "LeNet-300-100": Training(lenet_300_100, epochs=30),
    "LeNet-5": Training(lenet_5, epochs=8),
}


def float_network(name: str, seed: int) -> Path:
    """The trained network as ONNX, from the cache where it is there."""
    training = TRAININGS[name]
    made_by = f"{name} {seed} {training.epochs} {training.learning_rate} {training.batch_size} {training.weight_decay}"
    digest = hashlib.sha256(f"{made_by} torch {torch.__version__}".encode()).hexdigest()[:12]
    path = cache_folder() / f"{name}-{seed}-{digest}.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        network = fit(
            training.build(),
            mnist("train"),
            epochs=training.epochs,
            seed=seed,
            learning_rate=training.learning_rate,
            batch_size=training.batch_size,
            weight_decay=training.weight_decay,
        )
        unfinished = write_onnx(network, path.with_suffix(".unfinished"))
        _drop_notes(unfinished)
        unfinished.rename(path)
    return path


def _drop_notes(path: Path) -> None:
    """Removes what the exporter noted of source lines and shapes: 6 kB that belong to no network."""
    model = onnx.load(path)
    del model.graph.value_info[:], model.graph.metadata_props[:], model.metadata_props[:]
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.save(model, path)


def write_shifted_digits(path: Path) -> Path:
    """All training rows of MNIST, and each a second time, moved by up to one pixel each way."""
    images, digits = mnist("train")
    moves = np.random.default_rng(SPLIT_SEED).integers(-1, 2, (len(images), 2))
    padded, moved = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1))), np.empty_like(images)
    for down, right in product((-1, 0, 1), repeat=2):
        chosen = (moves == (down, right)).all(axis=1)
        moved[chosen] = padded[chosen][:, :, 1 - down : 29 - down, 1 - right : 29 - right]
    np.savez(path, input=np.concatenate([images, moved]), target=np.concatenate([digits, digits]))
    return path


def parameters(name: str) -> int:
    """How many values the network learnt."""
    return sum(values.numel() for values in TRAININGS[name].build().parameters())


def cache_folder() -> Path:
    """Where trained networks are kept."""
    if chosen := os.environ.get("PRESSROOM_BENCHMARKS"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pressroom" / "benchmarks"
