"""Rows, and what a model makes of them: how far a variant of the model is from it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workers.compression.data import Batch, Dataset
from workers.compression.families.model import Array, Feeds
from workers.compression.sensitivity.losses import loss_of
from workers.compression.specs.errors import DatasetMismatch
from workers.compression.specs.messages import Port
from workers.compression.task_scores import comparable

BATCH_ROWS = 16
KEPT_BYTES = 256 << 20
"""Rows and outputs are kept for all variants; no more of them than fit here."""
WORST = 1e18

Run = Callable[[Feeds], list[Array]]


@dataclass(frozen=True)
class Effect:
    """What a variant does.

    Args:
        error: Squared error of the float outputs over their squares, the mean over the outputs; texts' hidden states
            pooled first. ``WORST`` where NaN or infinity comes out.
        loss: Mean of the task's loss over the rows, where they have labels that it can be computed from.
    """

    error: float
    loss: float | None


class Yardstick:
    """Keeps the first rows of a dataset and what the unchanged model answers to them.

    Args:
        run: The unchanged model.
        inputs: Its inputs.
        tokenizer: Its tokenizer.json.
        dataset: The rows.
        rows: How many of them at most.

    Raises:
        DatasetMismatch: The rows cannot be fed to the model.
    """

    def __init__(self, run: Run, inputs: tuple[Port, ...], tokenizer: Path | None, dataset: Dataset, rows: int) -> None:
        self._dataset = dataset
        self._batches: list[Batch] = []
        self._kept: list[list[Array]] = []
        self._labelled = True
        losses: list[Array] = []
        room = KEPT_BYTES
        for batch in dataset.limited(rows).batches(inputs, BATCH_ROWS, tokenizer):
            outputs = run(batch.feeds)
            self._batches.append(batch)
            self._kept.append(comparable(outputs, batch, dataset))
            losses += self._losses(outputs, batch)
            room -= sum(values.nbytes for values in (*batch.feeds.values(), *self._kept[-1]))
            if room <= 0:
                break
        if not self._batches:
            raise DatasetMismatch("There are no rows to measure sensitivities on, or too few for the model's batches.")
        self._signals = [_squares(same) for same in zip(*self._kept, strict=True)]
        self.loss = _mean(losses)

    @property
    def rows(self) -> int:
        """How many rows are kept."""
        return sum(map(len, self._batches))

    def effect(self, run: Run) -> Effect:
        """How far the outputs of ``run`` are from those that were kept."""
        noises = [0.0] * len(self._signals)
        losses: list[Array] = []
        for batch, kept in zip(self._batches, self._kept, strict=True):
            outputs = run(batch.feeds)
            for index, (left, right) in enumerate(zip(kept, comparable(outputs, batch, self._dataset), strict=True)):
                noises[index] += _noise(left, right)
            losses += self._losses(outputs, batch)
        shares = [_share(noise, signal) for noise, signal in zip(noises, self._signals, strict=True)]
        return Effect(min(sum(shares) / max(len(shares), 1), WORST), _mean(losses))

    def _losses(self, outputs: list[Array], batch: Batch) -> list[Array]:
        if not self._labelled:
            return []
        try:
            found = loss_of(outputs, batch, self._dataset)
        except DatasetMismatch:
            found = None
        self._labelled = found is not None
        return [] if found is None else [found]


def _squares(batches: tuple[Array, ...]) -> float:
    return sum(float(np.sum(np.square(np.nan_to_num(_floats(values), posinf=0.0, neginf=0.0)))) for values in batches)


def _noise(left: Array, right: Array) -> float:
    """Squared error where the original gives numbers; where it gives none there is nothing to be faithful to."""
    before, after = _floats(left), _floats(right)
    known = np.isfinite(before)
    error = after[known] - before[known]
    return float(error @ error) if bool(np.isfinite(error).all()) else WORST


def _floats(values: Array) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    return np.asarray(values, np.float64).reshape(-1)


def _share(noise: float, signal: float) -> float:
    if signal > 0.0:
        return min(noise / signal, WORST)
    return 0.0 if noise <= 0.0 else WORST


def _mean(losses: list[Array]) -> float | None:
    if not losses:
        return None
    mean = float(np.mean(np.concatenate(losses)))
    return mean if np.isfinite(mean) else None
