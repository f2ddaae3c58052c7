"""How a parameter is stored where that is not how it is computed with."""

from dataclasses import dataclass

import torch

from workers.compression.families.weights import Weight, WeightForm
from workers.compression.specs.errors import UnsupportedTechnique


@dataclass(frozen=True)
class Int8Weight:
    """Uniform quantization: value = (integer - zero point) * scale.

    Args:
        integers: int8, the weight's shape.
        scales: Float; broadcasts against the weight, so one value or one per channel.
        zero_points: int8, shaped like ``scales``; None where zero is stored as 0.
    """

    integers: torch.Tensor
    scales: torch.Tensor
    zero_points: torch.Tensor | None = None

    def expanded(self) -> torch.Tensor:
        """The weight in the data type of its scales."""
        shifted = self.integers.to(self.scales.dtype)
        if self.zero_points is not None:
            shifted = shifted - self.zero_points.to(self.scales.dtype)
        return shifted * self.scales

    @property
    def nbytes(self) -> int:
        """Bytes of integers, scales and zero points."""
        zero_bytes = 0 if self.zero_points is None else self.zero_points.nbytes
        return self.integers.nbytes + self.scales.nbytes + zero_bytes


Storage = Int8Weight | torch.dtype
"""Integers, or a narrower float type."""


def storage_of(weight: Weight, form: WeightForm) -> Storage:
    """How the torch formats store ``form``."""
    raise UnsupportedTechnique(f"{weight.name}: no torch form for {type(form).__name__}")
