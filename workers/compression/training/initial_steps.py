"""Where the steps of a grid begin before they learn: where rounding errs least."""

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

Floats = npt.NDArray[np.float32]

_SHARES = np.linspace(1.0, 0.1, 46, dtype=np.float32)
"""How much of the range a grid may span; few bits waste less on outliers than they lose in between."""
_SAMPLED_PER_BATCH = 1 << 14
_SMALLEST = np.float32(1e-8)


def step_of_least_error(rows: Floats, limits: tuple[int, int]) -> Floats:
    """For each row the step of a symmetric grid with the least squared error.

    Args:
        rows: Shape (rows, elements).
        limits: Smallest and largest integer.

    Returns:
        Shape (rows,), positive; 1 for rows of zeros.
    """
    low, high = limits
    largest = np.maximum(rows.max(axis=1) / np.float32(high), rows.min(axis=1) / np.float32(low))
    best = np.where(largest > _SMALLEST, largest, np.float32(1.0)).astype(np.float32)
    whole, least = best.copy(), np.full(len(rows), np.inf)
    for share in _SHARES:
        step = whole * share
        rounded = np.clip(np.rint(rows / step[:, None]), low, high) * step[:, None]
        error = np.square(rows - rounded).sum(axis=1, dtype=np.float64)
        better = error < least
        best[better], least[better] = step[better], error[better]
    return best


def range_of_least_error(sample: Floats, low: float, high: float, bits: int) -> tuple[float, float]:
    """The part of a range around zero that an unsigned grid covers with the least squared error.

    Args:
        sample: Values to judge by.
        low: Smallest value there was, at most 0.
        high: Largest one, at least 0.
    """
    if not high > low:
        return low, low + 1.0
    top = float((1 << bits) - 1)
    best, least = (low, high), np.inf
    for share in _SHARES:
        start, end = float(low * share), float(high * share)
        step = (end - start) / top
        zero = np.rint(-start / step)
        rounded = (np.clip(np.rint(sample / step) + zero, 0.0, top) - zero) * step
        error = float(np.square(sample - rounded).mean(dtype=np.float64))
        if error < least:
            best, least = (start, end), error
    return best


class Watched(nn.Module):
    """Lets values pass and keeps their extremes and a sample of them.

    Args:
        seed: Of the choice of the sample.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = torch.Generator().manual_seed(seed)
        self._samples: list[torch.Tensor] = []
        self.low = 0.0
        self.high = 0.0

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The values as they are."""
        flat = values.detach().reshape(-1).float().cpu()
        if flat.numel():
            self.low, self.high = min(self.low, float(flat.min())), max(self.high, float(flat.max()))
            chosen = torch.randint(flat.numel(), (min(_SAMPLED_PER_BATCH, flat.numel()),), generator=self._random)
            self._samples.append(flat[chosen])
        return values

    def range(self, bits: int) -> tuple[float, float]:
        """What to represent with so many bits."""
        sample = torch.cat(self._samples).numpy() if self._samples else np.zeros(1, np.float32)
        return range_of_least_error(sample, self.low, self.high, bits)
