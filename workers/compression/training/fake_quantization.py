"""Rounding that gradients pass, with steps that learn (LSQ, arXiv:1902.08153; LSQ+, arXiv:2004.09576).

A step is learnt as its logarithm: it stays positive, and one rate suits steps of every size, since the updates of Adam
do not depend on how large a gradient is (arXiv:1903.08066, section 3.3). Offsets are whole multiples of the step, which
is what integers with a zero point stand for: zero stays exactly zero.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from workers.compression.families.weights import Weight
from workers.compression.quantization.activations import ActivationGrid
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.uniform import Grid, Parameters, UniformWeight, encode
from workers.compression.training.initial_steps import step_of_least_error

Limits = tuple[int, int]


class _Rounding(torch.autograd.Function):
    """``(clamp(round(values / step) + zero) - zero) * step`` with the gradients of LSQ+, equations 3 to 5.

    Values inside the limits pass their gradient on as it is, others pass none. The step's gradient is scaled by
    1 / sqrt(elements * largest integer), so that steps and weights learn in balance.
    """

    @staticmethod
    def forward(
        ctx: Any, values: torch.Tensor, step: torch.Tensor, zero: torch.Tensor, limits: Limits, elements: int
    ) -> torch.Tensor:
        ctx.save_for_backward(values, step, zero)
        ctx.limits, ctx.elements = limits, elements
        whole = zero.round()
        return ((values / step).round_().add_(whole).clamp_(*limits) - whole) * step

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        values, step, zero = ctx.saved_tensors
        low, high = ctx.limits
        balance = 1.0 / math.sqrt(ctx.elements * high)
        scaled, whole = values / step, zero.round()
        nearest = scaled.round()
        bounded = (nearest + whole).clamp(low, high) - whole
        inside = bounded == nearest
        by_step = torch.where(inside, nearest - scaled, bounded) * gradient
        by_zero = torch.where(inside, 0.0, -step * gradient) if ctx.needs_input_grad[2] else None
        return (
            torch.where(inside, gradient, 0.0),
            by_step.sum_to_size(step.shape) * balance,
            None if by_zero is None else by_zero.sum_to_size(zero.shape) * balance,
            None,
            None,
        )


class Dense(nn.Module):
    """A weight that learns as it is."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(weight.detach().clone())

    def forward(self) -> torch.Tensor:
        """The weight."""
        return self.values


class RoundedWeight(nn.Module):
    """A weight on a symmetric grid, rounded at each use; the values behind it and the steps learn.

    Args:
        source: Computes the values that are rounded, without arguments: ``Dense`` or ``Masked``.
        weight: What the model knows about it; ``source`` gives its stored shape.
        grid: Which integers there are.
        per_channel: A step for each row of the weight's matrix, or one for all.
    """

    zero: torch.Tensor

    def __init__(self, source: nn.Module, weight: Weight, grid: Grid, *, per_channel: bool) -> None:
        super().__init__()
        self.source, self.weight, self.grid = source, weight, grid
        matrix = np.asarray(weight.to_matrix(source().detach().float().cpu().numpy()), np.float32)
        self.blocks = Blocks.of_matrix(weight.matrix_shape, "channel" if per_channel else "tensor")
        rows = matrix if per_channel else matrix.reshape(1, -1)
        self.log_step = nn.Parameter(torch.from_numpy(step_of_least_error(rows, grid.limits)).log())
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self) -> torch.Tensor:
        """The weight."""
        elements = self.weight.size // self.log_step.numel()
        rounded: torch.Tensor = _Rounding.apply(self.source(), self._step(), self.zero, self.grid.limits, elements)  # type: ignore[no-untyped-call]  # torch's
        return rounded

    def form(self) -> UniformWeight:
        """The integers that stand for the present values; they restore to these to the last bit."""
        with torch.no_grad():
            values = self.source().float().cpu().numpy()
            scale = self.log_step.exp().cpu().numpy().reshape(self.blocks.counts)
        matrix = np.asarray(self.weight.to_matrix(values), np.float32)
        parameters = Parameters(scale)
        return UniformWeight(encode(matrix, parameters, self.grid, self.blocks), parameters, self.grid, self.blocks)

    def _step(self) -> torch.Tensor:
        """Shaped to broadcast against the weight as it is stored."""
        step = self.log_step.exp()
        if step.numel() == 1:
            return step.reshape(())
        weight = self.weight
        shape = [weight.shape[axis] if place < weight.leading else 1 for place, axis in enumerate(weight.order)]
        return step.reshape(shape).permute(*np.argsort(weight.order).tolist())


class RoundedInput(nn.Module):
    """What enters a layer, rounded to one unsigned grid; its step learns, and its offset where values are negative.

    Args:
        low: Smallest value to represent, at most 0.
        high: Largest one.
        bits: Of the grid.
    """

    def __init__(self, low: float, high: float, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.top = Grid(signed=False, bits=bits).limits[1]
        span = high - low if high > low else 1.0
        self.log_step = nn.Parameter(torch.tensor(span / self.top).log())
        self.share = nn.Parameter(torch.tensor(-low / span), requires_grad=low < 0)
        """Where zero lies on the grid: 0 at its lower end, 1 at its upper one."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The values on the grid."""
        elements = values.numel() // max(values.shape[0], 1) if values.dim() else 1
        rounded: torch.Tensor = _Rounding.apply(  # type: ignore[no-untyped-call]  # torch's
            values, self.log_step.exp(), self._zero(), (0, self.top), max(elements, 1)
        )
        return rounded

    @torch.no_grad()
    def grid(self) -> ActivationGrid:
        """The present grid."""
        return ActivationGrid(float(self.log_step.exp()), int(self._zero().round()), self.bits)

    def _zero(self) -> torch.Tensor:
        return (self.share * self.top).clamp(0, self.top)
