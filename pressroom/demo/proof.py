"""Runs a downloaded artifact in stock onnxruntime, with nothing of Pressroom's loaded, and scores it."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

BATCH = 32


def accuracy(model: Path, data: Path) -> float:
    """Share of rows whose greatest output is the label."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    arrays = np.load(data, allow_pickle=False)
    rows, labels = arrays[name], arrays["target"]
    answers = [
        session.run(None, {name: rows[start : start + BATCH]})[0].argmax(axis=1) for start in range(0, len(rows), BATCH)
    ]
    return float((np.concatenate(answers) == labels).mean())


if __name__ == "__main__":
    figures = {"accuracy": accuracy(Path(sys.argv[1]), Path(sys.argv[2])), "onnxruntime": onnxruntime.__version__}
    sys.stdout.write(json.dumps(figures))
