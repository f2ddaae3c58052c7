"""Accuracy and closeness of models on real rows, for tests."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from workers.compression.data import Dataset
from workers.compression.families.model import Array, Model

STOCK_RUNTIME = """
import sys
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
with np.load(sys.argv[2]) as feeds:
    np.save(sys.argv[3], session.run(None, {name: feeds[name] for name in feeds.files})[0])
"""


def logits(model: Model, dataset: Dataset) -> Array:
    """First outputs over all rows."""
    return np.concatenate([model.run(batch.feeds)[0] for batch in dataset.batches(model.inputs, 64, None)])


def accuracy(model: Model, dataset: Dataset) -> float:
    """Share of rows whose class is right."""
    targets = np.concatenate([batch.targets for batch in dataset.batches(model.inputs, 64, None)])
    return float(np.mean(logits(model, dataset).argmax(axis=1) == targets))


def cosine(left: Array, right: Array) -> float:
    """Cosine over all elements."""
    first, second = left.reshape(-1).astype(np.float64), right.reshape(-1).astype(np.float64)
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def run_in_stock_onnxruntime(path: Path, feeds: dict[str, Array], folder: Path) -> Array:
    """First output of the file in a fresh process that knows onnxruntime and nothing of ours."""
    np.savez(folder / "feeds.npz", **feeds)
    command = [sys.executable, "-c", STOCK_RUNTIME, str(path), str(folder / "feeds.npz"), str(folder / "output.npy")]
    subprocess.run(command, check=True, timeout=120)
    return np.load(folder / "output.npy")
