"""Which weights go while a network trains: chosen between updates, by schedule.

All that counts is in the network's state and the update's number, so a training that was cut off goes on to the same
masks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from workers.compression.specs.pruning_schedule import GradualSchedule, RewindSchedule
from workers.compression.training.network import Network
from workers.compression.training.schedule import Plan
from workers.compression.training.substitutes import Prunable

Candidates = Sequence[npt.NDArray[np.float32]]
Chooser = Callable[[Candidates, float], Sequence[npt.NDArray[np.generic]]]
"""From the values that all weights would have without masks and the share of them that goes, which elements stay."""


class Masking(Protocol):
    """Changes which weights of a network take part, between its updates."""

    @property
    def cycles(self) -> int:
        """How often the course of the training is gone through."""

    def settled(self, plan: Plan) -> int:
        """The number of the update before which masks change for the last time."""

    def before(self, update: int, plan: Plan, optimizer: torch.optim.Optimizer) -> None:
        """Has to be called before each update."""


@dataclass(frozen=True)
class _Masks:
    """What both have in common.

    Args:
        weights: That lose elements.
        choose: Which elements stay.
        sparsity: At the end.
    """

    weights: Sequence[Prunable]
    choose: Chooser
    sparsity: float

    def mask(self, sparsity: float) -> None:
        """Chooses anew."""
        candidates = [weight.candidates().cpu().numpy() for weight in self.weights]
        for weight, mask in zip(self.weights, self.choose(candidates, sparsity), strict=True):
            weight.keep(torch.from_numpy(np.ascontiguousarray(mask)))


@dataclass(frozen=True)
class GradualMasking(_Masks):
    """Sparsity rises along a cubic curve; what is masked may come back until it has reached its end."""

    schedule: GradualSchedule
    cycles: int = 1

    def settled(self, plan: Plan) -> int:
        """At least one update follows with the masks that stay."""
        return min(round(self.schedule.end * plan.updates), plan.updates - 1)

    def before(self, update: int, plan: Plan, optimizer: torch.optim.Optimizer) -> None:
        """Chooses anew every so many updates, and a last time at the end."""
        last = self.settled(plan)
        first = min(round(self.schedule.start * plan.updates), last)
        if update == last:
            self.mask(self.sparsity)
        elif first <= update < last and (update - first) % self.schedule.every == 0:
            self.mask(self.sparsity_at((update - first) / (last - first)))

    def sparsity_at(self, share: float) -> float:
        """The sparsity after a share of the way from start to end (Zhu and Gupta, arXiv:1710.01878, equation 1)."""
        return self.sparsity * (1.0 - (1.0 - share) ** 3)


@dataclass(frozen=True)
class RewindMasking(_Masks):
    """Rounds that each begin with fewer weights, a fresh optimizer, and, if so scheduled, the values of the start.

    Args:
        origin: The network's state before the first update.
    """

    schedule: RewindSchedule
    network: Network
    origin: dict[str, torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        """Keeps the state."""
        state = {name: values.clone() for name, values in self.network.state().items()}
        object.__setattr__(self, "origin", state if self.schedule.to == "values" else {})

    @property
    def cycles(self) -> int:
        """One per round."""
        return self.schedule.rounds

    def settled(self, plan: Plan) -> int:
        """The first update of the last round."""
        return plan.updates - plan.updates // self.cycles

    def before(self, update: int, plan: Plan, optimizer: torch.optim.Optimizer) -> None:
        """Begins a round, at every first update of one."""
        past, within = divmod(update, plan.updates // self.cycles)
        if within:
            return
        self.mask(1.0 - (1.0 - self.sparsity) ** ((past + 1) / self.cycles))
        if past:
            optimizer.state.clear()
            self._rewind()
        for weight in self.weights:
            weight.forget()

    def _rewind(self) -> None:
        if self.origin:
            masks = [weight.mask.clone() for weight in self.weights]
            self.network.restore(self.origin)
            for weight, mask in zip(self.weights, masks, strict=True):
                weight.keep(mask)
