"""An operator of an exported program as its rule sees it."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch._ops import OpOverload
from torch.fx import Node

from workers.compression.families.torch.pt2_layers import PASSING
from workers.compression.families.torch.pt2_program import operator_name
from workers.compression.families.torch.structure.edits import Edit, Numbers, argument_of
from workers.compression.structure.network import Network, Unrelated
from workers.compression.structure.relations import Axes, Elements

Shape = tuple[int, ...]

_ARRANGING: Final = PASSING | {"expand", "contiguous", "squeeze", "unsqueeze", "unflatten", "flatten"}


@dataclass
class Reading:
    """What is known so far of a graph that is read from its start to its end.

    Args:
        shapes: Of the tensors that each node gives, under some feeds.
        weights: Nodes of stored tensors that techniques can change.
        axes: Of the tensors that each node gives.
    """

    shapes: Mapping[Node, list[Shape]]
    weights: frozenset[Node]
    network: Network = field(default_factory=Network)
    axes: dict[Node, list[Axes]] = field(default_factory=dict)
    edits: list[Edit] = field(default_factory=list)

    def is_weight(self, node: Node) -> bool:
        """Whether a node is a stored matrix, perhaps arranged otherwise."""
        while operator_name(node) in _ARRANGING and isinstance(node.args[0], Node):
            node = node.args[0]
        return node in self.weights


@dataclass(frozen=True)
class Call:
    """One node."""

    reading: Reading
    node: Node

    @property
    def network(self) -> Network:
        """Where rules state what goes together."""
        return self.reading.network

    def argument(self, *names: str) -> Any:
        """An argument by the first of its names that the operator has; raises ``Unrelated`` if it has none."""
        try:
            position, known = argument_of(self.node, *names)
        except LookupError as error:
            raise Unrelated from error
        if position < len(self.node.args):
            return self.node.args[position]
        return self.node.kwargs.get(known.name, known.default_value)

    def has(self, name: str) -> bool:
        """Whether the operator has such an argument and it is given."""
        try:
            return self.argument(name) is not None
        except Unrelated:
            return False

    def integers(self, *names: str) -> list[int]:
        """An argument of one or more integers.

        Raises:
            Unrelated: Some are computed.
        """
        found = self.argument(*names)
        numbers = list(found) if isinstance(found, list | tuple) else [found]
        if not all(isinstance(number, int) for number in numbers):
            raise Unrelated
        return numbers

    def axes(self, *names: str) -> Axes:
        """Axes of an argument that is a tensor, the first one if no name is given."""
        node = self.argument(*names) if names else next(iter(self.node.all_input_nodes), None)
        return self._axes_of(node)

    def optional(self, *names: str) -> list[Axes]:
        """Axes of those of these arguments that are given."""
        return [self.axes(name) for name in names if self.has(name)]

    def operands(self) -> list[Axes]:
        """Axes of all arguments that are tensors."""
        return [made for node in self.node.all_input_nodes for made in self.reading.axes.get(node, ())]

    def members(self, name: str) -> list[Axes]:
        """Axes of the tensors of a list, in order."""
        return [self._axes_of(node) for node in self.argument(name)]

    def _axes_of(self, node: Any) -> Axes:
        made = self.reading.axes.get(node, []) if isinstance(node, Node) else []
        if len(made) != 1:
            raise Unrelated
        return made[0]

    def is_weight(self, name: str) -> bool:
        """Whether an argument is a stored matrix."""
        node = self.argument(name)
        return isinstance(node, Node) and self.reading.is_weight(node)

    def shape(self) -> Shape:
        """Shape of the first tensor that the operator gives."""
        return self.reading.shapes[self.node][0]

    def place(self, axes: Axes, name: str = "dim") -> int:
        """The axis that an argument names."""
        return int(self.integers(name)[0]) % len(axes)

    def sized(self, name: str, axes: Axes) -> None:
        """Notes that an argument says how long some axes are; -1 fits itself, and a 1 that repeats stays 1."""
        numbers = self.argument(name)
        counted = tuple(
            axis if isinstance(number, Node) or number == len(axis) > 1 else None
            for number, axis in zip(numbers, axes, strict=True)
        )
        self.reading.edits.append(Numbers(self.node, name, counted))

    def counted(self, name: str, elements: Elements | None) -> None:
        """Notes that an argument says how many of some elements there are."""
        if elements is not None:
            self.reading.edits.append(Numbers(self.node, name, elements))


Rule = Callable[[Call], list[Axes]]
"""Axes of the tensors that the operator gives, later ones left out if they are not read; raises ``Unrelated``."""


def outputs_read(node: Node) -> int:
    """How many of the tensors that a node gives are read, counted up to the last one that is."""
    places = [user.args[1] for user in node.users if user.target is operator.getitem and user.users]
    return max((place + 1 for place in places if isinstance(place, int)), default=0)


def has_tag(node: Node, tag: torch.Tag) -> bool:
    """Whether torch says of a node's operator what ``tag`` says."""
    return isinstance(node.target, OpOverload) and tag in node.target.tags
