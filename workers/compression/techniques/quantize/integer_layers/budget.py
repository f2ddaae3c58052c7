"""How much of a model's outputs may be lost, and which layers go when it is more."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from workers.compression.families.model import Array

Layer = TypeVar("Layer")

LAYER_BUDGET_DB = 10.0
OUTPUT_BUDGET_DB = 17.0
"""Of the whole model's outputs on calibration rows; 17 dB is a cosine of about 0.99."""

CHECKED_ROWS = 32
MAX_ROUNDS = 12
DROPPED_SHARE = 8
"""One in this many layers, the worst, is left out before the next try."""


def fewer_and_fewer(layers: Sequence[Layer], sqnr_db: Callable[[Layer], float], rounds: int) -> Iterator[list[Layer]]:
    """The layers within their own budget, then ever fewer of the worst of them."""
    kept = [layer for layer in layers if sqnr_db(layer) >= LAYER_BUDGET_DB]
    for _ in range(rounds):
        if not kept:
            return
        yield kept
        dropped = sorted(kept, key=sqnr_db)[: max(1, len(kept) // DROPPED_SHARE)]
        kept = [layer for layer in kept if layer not in dropped]


def closeness_db(exact: list[list[Array]], rounded: list[list[Array]]) -> float:
    """The worst SQNR among a model's float outputs over all batches; -inf where one is no longer finite."""
    worst = float("inf")
    for output in range(len(exact[0])):
        if exact[0][output].dtype.kind == "f":
            before, after = (_joined(outputs, output) for outputs in (exact, rounded))
            worst = min(worst, sqnr_db(before, after) if np.isfinite(after).all() else -np.inf)
    return worst


def sqnr_db(exact: npt.NDArray[np.float32], rounded: npt.NDArray[np.float32]) -> float:
    """Signal to quantization noise in dB; 200 where there is no noise."""
    noise = float(np.square(rounded - exact, dtype=np.float64).sum())
    return ratio_db(float(np.square(exact, dtype=np.float64).sum()), noise)


def ratio_db(signal: float, noise: float) -> float:
    """The ratio of two energies in dB, 200 where there is no noise."""
    return 200.0 if noise <= 0.0 else 10.0 * float(np.log10(max(signal, 1e-300) / noise))


def _joined(outputs: Sequence[list[Array]], output: int) -> npt.NDArray[np.float32]:
    return np.concatenate([np.asarray(batch[output], np.float32).reshape(-1) for batch in outputs])
