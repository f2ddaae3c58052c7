"""What the operators of an exported program that read a weight say about it."""

import torch

from workers.compression.families.torch.pt2_program import operator_name, users_of
from workers.compression.families.weights import Role

_INPUT_MAJOR = {"addmm": 2, "mm": 1, "matmul": 1, "bmm": 1}
"""Operators that take a weight as (inputs, outputs), and where."""
_TRANSPOSED = 6
"""Where a convolution is told whether it is a transposed one."""


def reader_of(node: torch.fx.Node) -> str:
    """The operator that a stored tensor is for, past the cast of a narrower type."""
    found = next(iter(users_of(node)), node)
    while operator_name(found) == "_to_copy" and len(found.users) == 1:
        found = next(iter(found.users))
    return operator_name(found)


def channel_axis(node: torch.fx.Node) -> int:
    """Outputs come first in torch's layers, last where a bare product reads the weight."""
    for user in users_of(node):
        if is_transposed(user) and user.args[1] is node:
            return 1
        position = _INPUT_MAJOR.get(operator_name(user))
        if position is not None and len(user.args) > position and user.args[position] is node:
            return -1
    return 0


def is_transposed(node: torch.fx.Node) -> bool:
    """Whether an operator is a transposed convolution."""
    name = operator_name(node)
    return name.startswith("conv_transpose") or (name == "convolution" and bool(node.args[_TRANSPOSED]))


def role_of(node: torch.fx.Node) -> Role:
    """What kind of layer reads a stored tensor."""
    operator = reader_of(node)
    if operator == "embedding":
        return "embedding"
    if "conv" in operator:
        return "convolution"
    if operator in {"lstm", "gru", "rnn_tanh", "rnn_relu"}:
        return "recurrent"
    return "linear" if operator in {"linear", *_INPUT_MAJOR} else "other"
