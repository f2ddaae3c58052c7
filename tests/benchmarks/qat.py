"""What training with rounded weights and activations regains of what rounding afterwards lost, at 4 bits.

    python -m tests.benchmarks.qat [--seeds 3] [--weights-only]

A small MobileNet on MNIST, one step per tensor, 4 bits for weights and for what enters each layer; judged on all 10,000
test rows. Ours: the stored ONNX artifact in onnxruntime. Peer: PyTorch's eager quantization-aware training with the
same bits, rows, epochs and rate, judged with rounding simulated, since it stores no 4-bit integers. ``--weights-only``
adds 4-bit weights under float activations, beside our weight-only quantization. Each is held against the better of the
two sides' quantizers without training.
"""

import argparse
import copy
import statistics
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.benchmarks.qat_inputs import calibrate, mobile, prepared, train, write_onnx
from tests.benchmarks.training_inputs import Split, accuracy, fit, mnist, write_digits
from tests.benchmarks.training_runs import learn, summary, verdict
from workers.compression.specs.steps.quantize_aware import QatQuantize

RECOVERED = 0.9
RATE = 1e-3
STEP: dict[str, Any] = {
    "technique": "quantize", "method": "qat", "bits": 4, "granularity": "tensor", "epochs": 1, "batch_size": 64,
    "learning_rate": RATE,
}  # fmt: skip
UNTRAINED: dict[str, Any] = {"max_steps": 1, "learning_rate": 1e-9, "validation": 0.0}
WEIGHT_ONLY: dict[str, Any] = {
    "technique": "quantize", "method": "weight_only", "bits": 4, "granularity": "tensor", "scheme": "symmetric",
}  # fmt: skip


def compare(
    network: nn.Sequential, model: Path, split: Split, folder: Path, activation_bits: int | None, seeds: int
) -> bool:
    """Both sides untrained and trained; whether ours regains its share."""
    step = STEP | {"activation_bits": activation_bits}
    before = accuracy(network, mnist("t10k"))
    afterwards = learn(model, [step | UNTRAINED], split, folder / "untrained").accuracy
    others = {"PyTorch, calibrated": _peer(network, activation_bits)}
    if activation_bits is None:
        others["weight_only"] = learn(model, [WEIGHT_ONLY], split, folder / "weight_only").accuracy
    made = [learn(model, [step], split, folder / f"qat{seed}", seed=seed) for seed in range(seeds)]
    ours = [found.accuracy for found in made]
    peers = [_peer(network, activation_bits, seed) for seed in range(seeds)]
    best = max(afterwards, *others.values())
    share = (statistics.mean(ours) - best) / (before - best)
    kind = "weights" if activation_bits is None else "weights and activations"
    print(f"MobileNet of 9,034 parameters on MNIST, 4-bit {kind}, one step per tensor; accuracy %, {seeds} seeds")
    print(f"{'float':44}{100 * before:6.2f}  {model.stat().st_size:,} bytes")
    print(f"{'pressroom, untrained':44}{100 * afterwards:6.2f}")
    for name, value in others.items():
        print(f"{name + ', untrained':44}{100 * value:6.2f}")
    print(f"{'pressroom, qat':44}{summary(ours)}  {made[0].path.stat().st_size:,} bytes, {made[0].seconds:.0f} s each")
    print(f"{'PyTorch prepare_qat':44}{summary(peers)}  (simulated)")
    print(f"regained of what rounding lost: {100 * share:.0f} %")
    print(f"bar: at least {100 * RECOVERED:.0f} %: {verdict(share >= RECOVERED)}\n", flush=True)
    return share >= RECOVERED


def _peer(network: nn.Sequential, activation_bits: int | None, seed: int | None = None) -> float:
    """PyTorch's accuracy, trained where there is a seed."""
    images, labels = mnist("train")
    rows = torch.from_numpy(images), torch.from_numpy(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao announces its successor, which knows no convolutions
        model = prepared(copy.deepcopy(network), STEP["bits"], activation_bits)
        if seed is None:
            calibrate(model, rows)
        else:
            train(model, rows, QatQuantize.model_validate(STEP | {"activation_bits": activation_bits}), seed)
    return accuracy(model, mnist("t10k"))


def main() -> int:
    """Prints the comparison and whether the bar was met."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights-only", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="pressroom-qat-") as name:
        folder = Path(name)
        torch.manual_seed(0)
        network = mobile(10)
        fit(network, mnist("train"), epochs=3, seed=0)
        model, split = write_onnx(network, folder / "mobile.onnx"), write_digits(folder)
        settings = (4, None) if chosen.weights_only else (4,)
        held = [compare(network, model, split, _new(folder / str(bits)), bits, chosen.seeds) for bits in settings]
    return 0 if all(held) else 1


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    sys.exit(main())
