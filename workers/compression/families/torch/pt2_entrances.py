"""Where activations enter the layers of an exported program that multiply them with a stored weight."""

import torch

from workers.compression.families.torch.pt2_layers import PRODUCTS
from workers.compression.families.torch.pt2_program import operator_name

_CONVOLUTIONS = frozenset(
    {
        "convolution", "conv1d", "conv2d", "conv3d",
        "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    }
)  # fmt: skip


def input_position(reader: torch.fx.Node, weight: torch.fx.Node) -> int | None:
    """Which argument of an operator is multiplied with ``weight``; None where it is no product or convolution."""
    name = operator_name(reader)
    position = 1 if name in _CONVOLUTIONS else PRODUCTS.get(name)
    if position is None or len(reader.args) <= position or reader.args[position] is not weight:
        return None
    return position - 1
