"""What quantization-aware training is measured on: a network that few bits hurt, and what plain PyTorch makes of it."""

from pathlib import Path

import torch
from torch import nn
from torch.ao.quantization import (
    FakeQuantize,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    QConfig,
    QuantStub,
    fuse_modules_qat,
    prepare_qat,
)
from torch.ao.quantization.fake_quantize import FakeQuantizeBase
from torch.nn.intrinsic.qat import freeze_bn_stats

from tests.benchmarks.training_peers import Rows, updates
from workers.compression.specs.training import TrainingStep

FROZEN_SHARE = 0.3
"""Of the updates, the last ones: ranges and batch norms' figures no longer move, as PyTorch's tutorial advises."""
CALIBRATION_ROWS = 256


def _separable(entering: int, leaving: int, stride: int) -> list[nn.Module]:
    """A convolution per channel, then one across channels (MobileNet, arXiv:1704.04861)."""
    return [
        nn.Conv2d(entering, entering, 3, stride, 1, groups=entering, bias=False),
        nn.BatchNorm2d(entering),
        nn.ReLU(),
        nn.Conv2d(entering, leaving, 1, bias=False),
        nn.BatchNorm2d(leaving),
        nn.ReLU(),
    ]


def mobile(classes: int) -> nn.Sequential:
    """A small MobileNet on [n, 1, 28, 28]: 9,034 parameters for ten classes.

    Folded batch norms give its channels very different ranges, which one step per tensor at 4 bits does not stand.
    """
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        *_separable(16, 32, 1), *_separable(32, 64, 2), *_separable(64, 64, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes),
    )  # fmt: skip


def write_onnx(network: nn.Module, path: Path) -> Path:
    """The network with a symbolic batch axis."""
    program = torch.onnx.export(
        network.eval(), (torch.zeros(2, 1, 28, 28),), dynamo=True, input_names=["input"], output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
    )  # fmt: skip
    if program is None:
        raise RuntimeError("the exporter gave no program")
    program.save(str(path))
    return path


def prepared(network: nn.Sequential, bits: int, activation_bits: int | None) -> nn.Sequential:
    """The network as PyTorch's eager quantization trains it: norms fused, one step per tensor, outputs in float."""
    weight = FakeQuantize.with_args(
        observer=MinMaxObserver, quant_min=-(1 << (bits - 1)), quant_max=(1 << (bits - 1)) - 1,
        dtype=torch.qint8, qscheme=torch.per_tensor_symmetric,
    )  # fmt: skip
    activation = nn.Identity
    if activation_bits is not None:
        activation = FakeQuantize.with_args(
            observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=(1 << activation_bits) - 1, dtype=torch.quint8,
        )  # fmt: skip
    model = nn.Sequential(QuantStub(), *network).train()
    norms = [place for place, module in enumerate(model) if isinstance(module, nn.BatchNorm2d)]
    model = fuse_modules_qat(model, [[str(norm - 1), str(norm), str(norm + 1)] for norm in norms])
    model.qconfig = QConfig(activation=activation, weight=weight)
    model[-1].qconfig = QConfig(activation=nn.Identity, weight=weight)
    return prepare_qat(model)


def calibrate(model: nn.Sequential, rows: Rows) -> None:
    """Moves the ranges on some rows; the norms keep their figures."""
    model.eval()
    with torch.no_grad():
        for part in rows[0][:CALIBRATION_ROWS].split(32):
            model(part)
    model.apply(_stop_watching)


def train(model: nn.Sequential, rows: Rows, spec: TrainingStep, seed: int) -> None:
    """Cross-entropy on labels with rounding on, in place."""
    inputs, labels = rows
    last = round(spec.epochs * -(-len(inputs) // spec.batch_size) * (1 - FROZEN_SHARE))
    for number, chosen in enumerate(updates(model, len(inputs), spec, seed)):
        if number == last:
            model.apply(_stop_watching)
            model.apply(freeze_bn_stats)
        nn.functional.cross_entropy(model(inputs[chosen]), labels[chosen]).backward()
    model.eval().apply(_stop_watching)


def _stop_watching(module: nn.Module) -> None:
    if isinstance(module, FakeQuantizeBase):
        module.disable_observer()
