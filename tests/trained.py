"""Small networks and forests trained on scikit-learn's real digits, in the formats that users upload."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import skops.io
import torch
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from torch import nn

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@lru_cache
def digits_split() -> Arrays:
    """Train images, test images, train labels, test labels; images [n, 64] float32 in 0..1."""
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images.astype(np.float32) / 16.0, labels, test_size=0.4, random_state=0, stratify=labels)
    return split[0], split[1], split[2].astype(np.int64), split[3].astype(np.int64)


def mlp() -> nn.Module:
    """64 → 256 → 128 → 10, large enough that headers do not dominate its file."""
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))


def cnn() -> nn.Module:
    """Three convolutions with batch norm and a classifier, on [n, 1, 8, 8]."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 16, 10),
    )


@lru_cache
def trained(kind: str) -> nn.Module:
    """The ``mlp`` or ``cnn`` after a few seconds of training; the same weights in every run on one machine."""
    torch.manual_seed(0)
    return fitted(mlp() if kind == "mlp" else cnn(), kind)


def fitted(network: nn.Module, kind: str, epochs: int = 25) -> nn.Module:
    """A network after some epochs on rows as ``mlp`` or ``cnn`` takes them."""
    torch.set_num_threads(1)
    images, _, labels, _ = digits_split()
    inputs = torch.from_numpy(images if kind == "mlp" else images.reshape(-1, 1, 8, 8))
    targets = torch.from_numpy(labels)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for epoch in range(epochs):
        order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[rows]), targets[rows]).backward()
            optimizer.step()
    return network.eval()


def example_input(kind: str) -> torch.Tensor:
    """Two test rows in the network's own shape."""
    images = digits_split()[1][:2]
    return torch.from_numpy(images if kind == "mlp" else images.reshape(-1, 1, 8, 8))


def write_onnx(kind: str, path: Path) -> Path:
    """The trained network as one ONNX file with a symbolic batch axis."""
    program = torch.onnx.export(
        trained(kind),
        (example_input(kind),),
        dynamo=True,
        input_names=["input"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    if program is None:
        raise RuntimeError("the exporter gave no program")
    program.save(str(path))
    return path


def write_pt2(kind: str, path: Path) -> Path:
    """The trained network as a ``torch.export`` archive with a symbolic batch axis."""
    return write_program(trained(kind), kind, path)


def write_program(network: nn.Module, kind: str, path: Path) -> Path:
    """A network that takes rows as ``mlp`` or ``cnn`` does, likewise."""
    shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},)
    torch.export.save(torch.export.export(network, (example_input(kind),), dynamic_shapes=shapes), path)
    return path


def write_npz(kind: str, path: Path, *, train: bool = False) -> Path:
    """The test (or train) split as ``input`` and ``target``."""
    train_images, test_images, train_labels, test_labels = digits_split()
    images, labels = (train_images, train_labels) if train else (test_images, test_labels)
    np.savez(path, input=images if kind == "mlp" else images.reshape(-1, 1, 8, 8), target=labels)
    return path


@lru_cache
def forest(trees: int = 50) -> ClassifierMixin:
    """A random forest on the same split."""
    images, _, labels, _ = digits_split()
    return RandomForestClassifier(trees, random_state=0, n_jobs=1).fit(images, labels)


def write_skops(path: Path, trees: int = 50) -> Path:
    """The forest as a skops file."""
    skops.io.dump(forest(trees), path)
    return path
