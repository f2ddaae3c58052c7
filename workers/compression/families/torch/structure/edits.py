"""Numbers in an exported program that repeat how many channels there are, and what they become."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch._ops import OpOverload
from torch.fx import Node

from workers.compression.structure.relations import Elements

Length = Callable[[Elements], int]
"""How many elements of an axis stay."""


def argument_of(node: Node, *names: str) -> tuple[int, Any]:
    """Where an operator takes the first of these arguments that it has, and what torch says of it.

    Raises:
        LookupError: It has none of them.
    """
    target = node.target
    for position, known in enumerate(target._schema.arguments if isinstance(target, OpOverload) else ()):  # noqa: SLF001 - torch has no other way to ask
        if known.name in names:
            return position, known
    raise LookupError(names)


class Edit(Protocol):
    """What an operator needs besides smaller weights."""

    @property
    def node(self) -> Node:
        """The operator."""

    def apply(self, length: Length) -> bool:
        """Changes the operator if any of its numbers changes; whether it does."""


@dataclass(frozen=True, eq=False)
class Numbers:
    """An argument that says how many of some elements there are: groups, a bound, or the sizes of a shape.

    Args:
        counted: The elements; for a list of numbers those of each, None where a number stays.
    """

    node: Node
    argument: str
    counted: Elements | tuple[Elements | None, ...]

    def apply(self, length: Length) -> bool:
        """Rewrites the argument."""
        counted = self.counted if isinstance(self.counted, tuple) else (self.counted,)
        if all(elements is None or length(elements) == len(elements) for elements in counted):
            return False
        position = argument_of(self.node, self.argument)[0]
        given = len(self.node.args) > position
        before = self.node.args[position] if given else self.node.kwargs[self.argument]
        numbers = before if isinstance(before, list | tuple) else [before]
        after = [
            number if elements is None else self._number(number, length(elements), len(elements))
            for number, elements in zip(numbers, counted, strict=True)
        ]
        value: Any = after if isinstance(self.counted, tuple) else after[0]
        if given:
            self.node.update_arg(position, value)
        else:
            self.node.update_kwarg(self.argument, value)
        return True

    def _number(self, number: Any, kept: int, count: int) -> Any:
        """A computed number is a multiple of the count, such as rows times heads."""
        if kept == count:
            return number
        if not isinstance(number, Node):
            return kept
        graph = self.node.graph
        with graph.inserting_before(self.node):
            return graph.call_function(operator.mul, (graph.call_function(operator.floordiv, (number, count)), kept))


@dataclass(frozen=True, eq=False)
class Portions:
    """The lengths of the parts that an axis is cut into."""

    node: Node
    axis: int
    parts: tuple[Elements, ...]

    def apply(self, length: Length) -> bool:
        """Replaces the operator by one that is told each part's length."""
        sizes = [length(part) for part in self.parts]
        if sizes == [len(part) for part in self.parts]:
            return False
        self.node.target = torch.ops.aten.split_with_sizes.default
        self.node.args, self.node.kwargs = (self.node.args[0], sizes, self.axis), {}
        return True
