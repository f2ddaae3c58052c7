"""The optimizer of a step: rates by layer, decay for matrices only."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from workers.compression.specs.training import TrainingStep

_SMALL, _LARGE = 1e6, 1e7
_SMALL_RATE, _LARGE_RATE = 1e-3, 5e-5


@dataclass(frozen=True)
class Rates:
    """Peak learning rates.

    Args:
        peak: Of every parameter that ``shares`` does not name.
        shares: By name of a parameter the share of the peak it learns at.
    """

    peak: float
    shares: Mapping[str, float]


def customary_rate(parameters: int) -> float:
    """A rate for training all of a network of that size.

    1e-3 up to a million parameters and 5e-5 from ten million on, between them falling evenly in the logarithm: what
    small convolutional networks and pretrained transformers are tuned with.
    """
    size = min(max(float(parameters), _SMALL), _LARGE)
    place = math.log(size / _SMALL) / math.log(_LARGE / _SMALL)
    return math.exp((1 - place) * math.log(_SMALL_RATE) + place * math.log(_LARGE_RATE))


def build(spec: TrainingStep, parameters: Mapping[str, nn.Parameter], rates: Rates) -> torch.optim.Optimizer:
    """AdamW (arXiv:1711.05101) or SGD with momentum; parameters of one rate and decay make a group.

    Each group holds ``peak`` besides what torch asks for; ``set_rates`` scales it.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        decay = spec.weight_decay if parameter.dim() > 1 else 0.0
        groups.setdefault((rates.peak * rates.shares.get(name, 1.0), decay), []).append(parameter)
    described = [
        {"params": members, "lr": peak, "peak": peak, "weight_decay": decay}
        for (peak, decay), members in groups.items()
    ]
    if spec.optimizer == "sgd":
        return torch.optim.SGD(described, lr=rates.peak, momentum=spec.momentum)
    return torch.optim.AdamW(described, lr=rates.peak)


def set_rates(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Sets every group to ``share`` of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


def layer_shares(layers: Sequence[Sequence[str]], decay: float) -> dict[str, float]:
    """Discriminative rates: each layer at ``decay`` times the rate of the one above it, the last at the whole."""
    return {name: decay ** (len(layers) - 1 - index) for index, names in enumerate(layers) for name in names}


def state_of(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Tensors of the optimizer's state as ``parameter/entry``; ``names`` in the order of its groups."""
    state = optimizer.state_dict()["state"]
    return {
        f"{names[index]}/{entry}": values
        for index, entries in state.items()
        for entry, values in entries.items()
        if isinstance(values, torch.Tensor)
    }


def fits(spec: TrainingStep, parameters: Mapping[str, nn.Parameter], state: Mapping[str, torch.Tensor]) -> bool:
    """Whether ``state`` is what ``state_of`` gives after an update; parameters without gradients have no part in it."""
    found: dict[str, dict[str, torch.Size]] = {}
    for key, values in state.items():
        name, _, entry = key.rpartition("/")
        found.setdefault(name, {})[entry] = values.shape
    if not _entries(spec):
        return not found
    return bool(found) and all(
        name in parameters and shapes == _shapes(spec, parameters[name]) for name, shapes in found.items()
    )


def _entries(spec: TrainingStep) -> tuple[str, ...]:
    if spec.optimizer == "sgd":
        return ("momentum_buffer",) if spec.momentum else ()
    return ("step", "exp_avg", "exp_avg_sq")


def _shapes(spec: TrainingStep, parameter: nn.Parameter) -> dict[str, torch.Size]:
    return {entry: torch.Size() if entry == "step" else parameter.shape for entry in _entries(spec)}


def restore(optimizer: torch.optim.Optimizer, names: Sequence[str], state: Mapping[str, torch.Tensor]) -> None:
    """Takes over what ``state_of`` gave; the optimizer has to be of the kind that ``fits`` looked at."""
    numbers = {name: index for index, name in enumerate(names)}
    found: dict[int, dict[str, torch.Tensor]] = {}
    for key, values in state.items():
        name, _, entry = key.rpartition("/")
        found.setdefault(numbers[name], {})[entry] = values
    optimizer.load_state_dict({"state": found, "param_groups": optimizer.state_dict()["param_groups"]})


def names_in_order(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> list[str]:
    """Names in the order in which the optimizer numbers its parameters."""
    by_identity = {id(parameter): name for name, parameter in parameters.items()}
    return [by_identity[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
