"""What the torch families share in training: values back into stored types, and what cannot learn."""

import torch

from workers.compression.specs.errors import UnsupportedTechnique


def adopted(learned: torch.Tensor, stored: torch.Tensor) -> torch.Tensor:
    """A copy of ``learned`` in the type and layout of ``stored``; a parameter where that is one."""
    values = torch.empty_like(stored, requires_grad=False).copy_(learned.detach())
    return torch.nn.Parameter(values, requires_grad=False) if isinstance(stored, torch.nn.Parameter) else values


def quantized_before_training(name: str) -> UnsupportedTechnique:
    """The refusal of weights that are stored as integers."""
    return UnsupportedTechnique(
        f"{name} is stored as integers, which cannot learn.", hint="Train first, then quantize in the same recipe."
    )
