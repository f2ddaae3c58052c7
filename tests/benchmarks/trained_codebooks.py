"""Codebooks of 3 bits whose values learn, on all 10,000 test rows of MNIST.

    python -m tests.benchmarks.trained_codebooks [--seeds 3] [--bits 3]

LeNet-5, trained anew for each seed; the stored ONNX artifact in onnxruntime. Peers: the same codes without training,
and torch.ao's per-tensor fake quantization trained over the same rows and as long, at the same bits.
"""

import argparse
import copy
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver

from tests.benchmarks.qat_inputs import write_onnx
from tests.benchmarks.training_inputs import accuracy, fit, lenet, mnist, write_digits
from tests.benchmarks.training_runs import learn, summary, verdict

BAR = 0.01
RECOVERY = {"technique": "finetune", "method": "recover", "epochs": 1, "batch_size": 64, "learning_rate": 1e-3}


class _Rounded(nn.Module):
    """A weight rounded to integers of few bits while it learns, straight through."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        top = (1 << (bits - 1)) - 1
        self.rounding = FakeQuantize(
            MovingAverageMinMaxObserver, quant_min=-top - 1, quant_max=top, dtype=torch.qint8,
            qscheme=torch.per_tensor_symmetric, reduce_range=False,
        )  # fmt: skip

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return self.rounding(weight)


def peer(network: nn.Module, bits: int, seed: int) -> float:
    """torch.ao's uniform fake quantization of the weights, trained on the labels for as long."""
    trained = copy.deepcopy(network)
    for layer in trained.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.numel() >= 4096:
            nn.utils.parametrize.register_parametrization(layer, "weight", _Rounded(bits))
    fit(trained, mnist("train"), epochs=1, seed=seed, learning_rate=1e-3)
    return accuracy(trained, mnist("t10k"))


def main() -> int:
    """Prints both sides; 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bits", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    before, plain, ours, others = list[float](), list[float](), list[float](), list[float]()
    sizes: list[tuple[int, int]] = []
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            torch.manual_seed(seed)
            network = fit(lenet(10), mnist("train"), epochs=3, seed=seed)
            model = write_onnx(network, folder / "lenet.onnx")
            split = write_digits(folder)
            step: dict[str, Any] = {"technique": "quantize", "method": "kmeans", "bits": arguments.bits}
            before.append(accuracy(network, mnist("t10k")))
            plain.append(learn(model, [step], split, folder / "plain", seed=seed).accuracy)
            made = learn(model, [step | {"recovery": RECOVERY}], split, folder / "learnt", seed=seed)
            ours.append(made.accuracy)
            others.append(peer(network, arguments.bits, seed))
            sizes.append((model.stat().st_size, made.path.stat().st_size))
            print(
                f"seed {seed}: float {100 * before[-1]:.2f}, codes {100 * plain[-1]:.2f}, "
                f"trained {100 * ours[-1]:.2f}, torch.ao {100 * others[-1]:.2f}; "
                f"{sizes[-1][0]:,} to {sizes[-1][1]:,} bytes",
                flush=True,
            )
    print(f"LeNet-5 on MNIST, {arguments.bits}-bit weights, accuracy % over {arguments.seeds} seeds")
    for label, values in (
        ("float", before),
        ("codebooks, untrained", plain),
        ("codebooks, trained", ours),
        ("torch.ao uniform, trained", others),
    ):
        print(f"{label:28}{summary(values)}")
    worst = max(first - last for first, last in zip(before, ours, strict=True))
    print(f"bar: within 1 point of float accuracy for every seed (worst {100 * worst:+.2f}): {verdict(worst <= BAR)}")
    return int(worst > BAR)


if __name__ == "__main__":
    sys.exit(main())
