"""Trained networks and real data on the live service, uploaded once."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.e2e.keyed import Projects, keyed_service
from tests.live import LiveService
from tests.trained import digits_split, write_npz, write_onnx


@dataclass(frozen=True)
class Digits:
    """The trained perceptron and the digits it is judged on: the files, and their objects on the service."""

    onnx: Path
    train_file: Path
    model: dict[str, Any]
    test: dict[str, Any]
    train: dict[str, Any]

    @property
    def data(self) -> dict[str, str]:
        """Both roles of a job's ``data``."""
        return {"calibration": self.train["id"], "evaluation": self.test["id"]}


@pytest.fixture(scope="session")
def digits(service: LiveService, tmp_path_factory: pytest.TempPathFactory) -> Digits:
    folder = tmp_path_factory.mktemp("digits")
    onnx = write_onnx("mlp", folder / "digits.onnx")
    train = write_npz("mlp", folder / "train.npz", train=True)
    test = write_npz("mlp", folder / "test.npz")
    return Digits(
        onnx,
        train,
        service.ready("model", onnx),
        service.ready("dataset", test),
        service.ready("dataset", train),
    )


@pytest.fixture(scope="session")
def quantized(service: LiveService, digits: Digits) -> dict[str, Any]:
    """A finished dynamic quantization, for tests that only read results."""
    request = {"data": {"evaluation": digits.test["id"]}, "labels": {"suite": "reading"}}
    return service.succeeded(digits.model["id"], [{"technique": "quantize"}], **request)


@pytest.fixture(scope="session")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Projects]:
    with keyed_service(tmp_path_factory.mktemp("keyed")) as running:
        yield running


def accuracy(onnx: Path) -> float:
    """Share of the test digits that stock onnxruntime gets right with this file."""
    _, images, _, labels = digits_split()
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    logits = session.run(None, {session.get_inputs()[0].name: images})[0]
    return float(np.mean(np.argmax(logits, axis=1) == labels))
