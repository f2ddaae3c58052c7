"""How far a training goes, and the learning rate on the way: functions of the update's number alone.

So an interrupted training that knows its update knows everything else.
"""

import math
from dataclasses import dataclass

import numpy as np

from workers.compression.specs.training import TrainingStep


@dataclass(frozen=True)
class Plan:
    """The course of a training.

    Args:
        batches: Batches of one epoch.
        accumulation: Batches per update.
        updates: Updates in all.
        warmup: Updates in which the rate rises, of a cycle.
        shape: How the rate falls afterwards: ``constant``, ``linear`` or ``cosine``.
        cycles: Equal parts of the updates, in each of which the rate goes through the same course.
    """

    batches: int
    accumulation: int
    updates: int
    warmup: int
    shape: str
    cycles: int = 1

    @classmethod
    def of(cls, spec: TrainingStep, batches: int, cycles: int = 1) -> "Plan":
        """The plan of a step over an epoch of ``batches``, gone through ``cycles`` times."""
        per_epoch = math.ceil(batches / spec.accumulation)
        updates = max(1, math.ceil(spec.epochs * per_epoch - 1e-9))
        updates = min(updates, spec.max_steps or updates)
        return cls(batches, spec.accumulation, cycles * updates, round(spec.warmup * updates), spec.schedule, cycles)

    @property
    def per_epoch(self) -> int:
        """Updates of one epoch."""
        return math.ceil(self.batches / self.accumulation)

    def place(self, update: int) -> tuple[int, int]:
        """Epoch and its number of the first batch that ``update`` (counted from 0) takes."""
        epoch, within = divmod(update, self.per_epoch)
        return epoch, within * self.accumulation

    def epochs_at(self, update: int) -> float:
        """Epochs done after ``update`` updates."""
        return update / self.per_epoch

    def is_validated(self, update: int) -> bool:
        """Whether weights are judged after ``update`` updates: at the ends of epochs and of the training."""
        return update % self.per_epoch == 0 or update == self.updates

    def rate(self, update: int) -> float:
        """Share of the peak learning rate in the update numbered ``update``, from 0."""
        cycle = self.updates // self.cycles
        within = update % cycle
        if within < self.warmup:
            return (within + 1) / self.warmup
        if self.shape == "constant":
            return 1.0
        left = 1.0 - (within - self.warmup) / max(1, cycle - self.warmup)
        return left if self.shape == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)


def seed_of(seed: int, *path: int) -> int:
    """A seed of its own for every place in a training."""
    return int(np.random.SeedSequence([seed, *path]).generate_state(1, np.uint64)[0] >> np.uint64(1))
