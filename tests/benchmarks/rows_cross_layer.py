"""Evidence of blocks that come to share their matrices."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.benchmarks.cross_layer_inputs import BLOCKS, plain_sharing, resnet
from tests.benchmarks.rows import Row
from tests.benchmarks.training_inputs import digits_of, fit, write_digits, write_pt2

DIGITS, ROWS_TO_LEARN, COPIES = range(10), 5000, 2
SHARE: dict[str, Any] = {
    "technique": "share", "method": "cross_layer", "copies": COPIES,
    "recovery": {"epochs": 3, "batch_size": 64, "learning_rate": 2e-3, "validation": 0.0},
}  # fmt: skip


@lru_cache
def _trained() -> nn.Module:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so small a network gains nothing from a second one
    return fit(resnet(len(DIGITS)), digits_of("train", DIGITS, 2 * ROWS_TO_LEARN), epochs=3, seed=0)


def _model(folder: Path) -> Path:
    return write_pt2(_trained(), folder / "resnet.pt2")


ROWS = (
    Row(
        SHARE, f"residual network of {BLOCKS} blocks on MNIST, pt2", _model, f"MNIST, {ROWS_TO_LEARN} training rows",
        lambda folder: write_digits(folder, DIGITS, ROWS_TO_LEARN).test, "accuracy",
        f"plain PyTorch: blocks tied in {COPIES} runs to the first of each, same epochs", plain_sharing,
        write_train=lambda folder: write_digits(folder, DIGITS, ROWS_TO_LEARN).train,
    ),
)  # fmt: skip
