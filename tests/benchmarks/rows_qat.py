"""The evidence's rows of quantization-aware training, and the peer they are held against."""

import copy
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.benchmarks.peers import Figures, Subject
from tests.benchmarks.qat_inputs import mobile, prepared, train, write_onnx
from tests.benchmarks.rows import Row
from tests.benchmarks.training_inputs import accuracy, fit, mnist, write_digits, write_pt2
from tests.benchmarks.training_peers import SEED, rows_of, spec_of
from workers.compression.specs.steps.quantize_aware import QatQuantize

QAT: dict[str, Any] = {
    "technique": "quantize", "method": "qat", "bits": 4, "activation_bits": 4, "granularity": "tensor", "epochs": 1,
    "batch_size": 64, "learning_rate": 1e-3,
}  # fmt: skip
MNIST_ROWS = 20_000


@lru_cache
def _trained() -> nn.Sequential:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so small a network gains nothing from a second one
    network = mobile(10)
    fit(network, mnist("train"), epochs=2, seed=0)
    return network


def prepare_qat(subject: Subject) -> Figures:
    """PyTorch's eager quantization-aware training; what it trained can be stored as floats only."""
    spec = spec_of(subject)
    if not isinstance(spec, QatQuantize):
        raise TypeError(f"{spec.key()} rounds nothing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao announces its successor, which knows no convolutions
        model = prepared(copy.deepcopy(_trained()), spec.bits, spec.activation_bits)
        train(model, rows_of(subject.train), spec, SEED)
    torch.save(model.state_dict(), subject.folder / "peer.pt")
    return Figures((subject.folder / "peer.pt").stat().st_size, accuracy(model, mnist("t10k")), None)


def _row(kind: str, suffix: str) -> Row:
    write = write_onnx if suffix == "onnx" else write_pt2
    return Row(
        QAT, f"MobileNet of 9,034 parameters on MNIST, {kind}",
        lambda folder: write(_trained(), folder / f"mobile.{suffix}"), f"MNIST, {MNIST_ROWS} training rows",
        _test_rows, "accuracy", "PyTorch prepare_qat, same bits, rows and epochs, rounding simulated", prepare_qat,
        write_train=_train_rows,
    )  # fmt: skip


def _test_rows(folder: Path) -> Path:
    return write_digits(folder, train_rows=MNIST_ROWS).test


def _train_rows(folder: Path) -> Path:
    return write_digits(folder, train_rows=MNIST_ROWS).train


ROWS = (_row("ONNX", "onnx"), _row("pt2", "pt2"))
