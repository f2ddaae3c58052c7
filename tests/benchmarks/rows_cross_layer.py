"""Evidence of blocks that come to share their matrices."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.benchmarks.cross_layer_inputs import BLOCKS, VisionTransformer, plain_sharing
from tests.benchmarks.rows import Row
from tests.benchmarks.training_inputs import digits_of, fit, write_digits, write_pt2

DIGITS, ROWS_TO_LEARN, COPIES = range(10), 4000, 2
SHARE: dict[str, Any] = {
    "technique": "share", "method": "cross_layer", "copies": COPIES,
    "recovery": {"epochs": 3, "batch_size": 64, "learning_rate": 2e-3, "validation": 0.0},
}  # fmt: skip


@lru_cache
def _trained() -> nn.Module:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so small a network gains nothing from a second one
    rows = digits_of("train", DIGITS, ROWS_TO_LEARN)
    return fit(VisionTransformer(len(DIGITS)), rows, epochs=10, seed=0, batch_size=128)


def _model(folder: Path) -> Path:
    return write_pt2(_trained(), folder / "transformer.pt2")


ROWS = (
    Row(
        SHARE, f"vision transformer of {BLOCKS} blocks on MNIST, pt2", _model, f"MNIST, {ROWS_TO_LEARN} training rows",
        lambda folder: write_digits(folder, DIGITS, ROWS_TO_LEARN).test, "accuracy",
        f"plain PyTorch: blocks tied in {COPIES} runs to the first of each, same epochs", plain_sharing,
        write_train=lambda folder: write_digits(folder, DIGITS, ROWS_TO_LEARN).train,
    ),
)  # fmt: skip
