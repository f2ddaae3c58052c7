"""Operators that behave otherwise in training: batch norms and dropouts, as modules that ``train()`` switches.

A program is exported in one mode, with the mode as an argument of these operators. Those exported for evaluation are
switched here; what was exported for training would go on predicting by chance after training, so it is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional

from workers.compression.families.torch.pt2_program import operator_name
from workers.compression.specs.errors import UnsupportedTechnique


@dataclass(frozen=True)
class _Norm:
    """Where a batch norm operator takes what; ``flag`` is None where the operator is for evaluation only."""

    flag: int | None
    momentum: int
    is_tuple: bool


_NORMS: Final = {
    "batch_norm": _Norm(5, 6, is_tuple=False),
    "native_batch_norm": _Norm(5, 6, is_tuple=True),
    "_native_batch_norm_legit": _Norm(5, 6, is_tuple=True),
    "cudnn_batch_norm": _Norm(5, 6, is_tuple=True),
    "_native_batch_norm_legit_no_training": _Norm(None, 5, is_tuple=True),
    "_batch_norm_no_update": _Norm(None, 5, is_tuple=True),
}
_FUNCTIONAL_NORMS: Final = frozenset(
    {"_native_batch_norm_legit_functional", "_batch_norm_with_update", "_batch_norm_with_update_functional"}
)
_FLAGS: Final = {
    **dict.fromkeys(("dropout", "native_dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"), 2),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), 6),
}
"""Operators with an argument that says whether they train, and where it stands."""


class SwitchedBatchNorm(torch.nn.Module):
    """Normalizes by the batch's figures in training, which also move the running ones; else by the running ones.

    A frozen norm, one whose scale and shift do not learn, keeps its running figures; so does one that has neither,
    where nothing below it learns.
    """

    def __init__(self, momentum: float, epsilon: float, *, is_tuple: bool) -> None:
        super().__init__()
        self.momentum = momentum
        self.epsilon = epsilon
        self.is_tuple = is_tuple

    def forward(
        self,
        values: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        mean: torch.Tensor,
        variance: torch.Tensor,
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """The normalized values, alone or as the first of a tuple whose other parts are empty, as in evaluation."""
        own = [tensor for tensor in (weight, bias) if tensor is not None] or [values]
        learns = any(tensor.requires_grad for tensor in own)
        # One value per channel has no variance to go by.
        trains = self.training and learns and values.numel() > values.shape[1]
        found = functional.batch_norm(
            values, mean, variance, weight, bias, training=trains, momentum=self.momentum, eps=self.epsilon
        )
        return (found, *(values.new_empty(0) for _ in range(3))) if self.is_tuple else found


class SwitchedOperator(torch.nn.Module):
    """An operator that takes, at ``position``, whether it trains."""

    def __init__(self, operator: Callable[..., Any], position: int) -> None:
        super().__init__()
        self.operator = operator
        self.position = position

    def forward(self, *arguments: Any) -> Any:
        """As the operator."""
        before, after = arguments[: self.position], arguments[self.position + 1 :]
        return self.operator(*before, self.training, *after)


def switched(node: torch.fx.Node) -> tuple[torch.nn.Module, tuple[Any, ...]] | None:
    """A module for an operator that knows two modes, and the arguments it takes; None for all other nodes.

    Raises:
        UnsupportedTechnique: The program was exported for training.
    """
    name = operator_name(node)
    if name in _FUNCTIONAL_NORMS:
        raise _exported_for_training(node)
    norm = _NORMS.get(name)
    if norm is not None and all(argument is not None for argument in node.args[3:5]):
        if norm.flag is not None and node.args[norm.flag]:
            raise _exported_for_training(node)
        momentum, epsilon = node.args[norm.momentum : norm.momentum + 2]
        return SwitchedBatchNorm(float(momentum), float(epsilon), is_tuple=norm.is_tuple), node.args[:5]  # type: ignore[arg-type]  # numbers by the operator's schema
    flag = _FLAGS.get(name)
    if flag is not None and len(node.args) > flag and isinstance(node.args[flag], bool):
        if node.args[flag]:
            raise _exported_for_training(node)
        return SwitchedOperator(node.target, flag), node.args  # type: ignore[arg-type]  # an operator, since it has a name
    return None


def running_figures(node: torch.fx.Node) -> tuple[Any, ...]:
    """What a batch norm takes as running mean and variance; empty for all other nodes."""
    name = operator_name(node)
    return tuple(node.args[3:5]) if name in _NORMS or name in _FUNCTIONAL_NORMS else ()


def epsilon_in_evaluation(node: torch.fx.Node) -> float | None:
    """What a batch norm adds to the variance; None for all other nodes and for norms exported for training."""
    norm = _NORMS.get(operator_name(node))
    if norm is None or (norm.flag is not None and node.args[norm.flag]):
        return None
    return float(node.args[norm.momentum + 1])  # type: ignore[arg-type]  # a number by the operator's schema


def _exported_for_training(node: torch.fx.Node) -> UnsupportedTechnique:
    return UnsupportedTechnique(
        f"The program was exported in training mode: {node.name} would change its answers from call to call.",
        hint="Call eval() on the module before torch.export.",
    )
