"""A node as the rules of operators see it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from onnx import AttributeProto, TensorProto

from workers.compression.families.model import Array
from workers.compression.families.onnx.small_values import computed, small
from workers.compression.families.onnx.structure.edits import Edit
from workers.compression.families.onnx.walking import STANDARD, Index, Place, Value
from workers.compression.structure.network import Network, Unrelated
from workers.compression.structure.relations import Axes, Elements, fixed

Shape = tuple[int, ...]
Lengths = tuple[Elements | int | None, ...]
"""What the numbers of a row of sizes are: the length of an axis, a known number, or anything."""

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
_ARRANGING = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


@dataclass
class Reading:
    """What is known so far of a graph that is read from its start to its end.

    Args:
        shapes: Of values of the main graph under some feeds; not of stored ones.
        axes: Of values met.
        stored: Of them those that are stored.
        lengths: Of values that hold lengths of axes.
    """

    index: Index
    shapes: dict[str, Shape]
    relations: Network = field(default_factory=Network)
    axes: dict[Value, Axes] = field(default_factory=dict)
    stored: dict[Value, Axes] = field(default_factory=dict)
    edits: list[Edit] = field(default_factory=list)
    numbers: dict[Value, Array | None] = field(default_factory=dict)
    lengths: dict[Value, Lengths] = field(default_factory=dict)

    @property
    def opset(self) -> int:
        """Version of the standard operators."""
        return max((version for domain, version in self.index.opsets.items() if domain in STANDARD), default=1)

    def axes_of(self, value: Value | None) -> Axes | None:
        """A value's axes; those of a stored float tensor are made when it is first met. None if it has no shape."""
        if value is None or value in self.axes:
            return self.axes.get(value) if value is not None else None
        tensor = self.index.stored.get(value)
        if tensor is None:
            shape = self.shapes.get(value.name)
            return None if shape is None else fixed(shape)
        if tensor.data_type not in _FLOATS or value.scope is not self.index.scopes[0]:
            return fixed(tensor.dims)
        self.axes[value] = self.stored[value] = tuple(self.relations.fresh(size) for size in tensor.dims)
        return self.axes[value]

    def is_stored(self, value: Value | None) -> bool:
        """Whether a value is a stored tensor, perhaps arranged otherwise."""
        while value is not None and value not in self.index.stored:
            maker = self.index.makers.get(value)
            if maker is None or maker.node.op_type not in _ARRANGING or maker.node.domain not in STANDARD:
                return False
            value = self.index.read(maker, 0)
        return value is not None

    def known(self, value: Value | None) -> Array | None:
        """The few numbers that a value always has."""
        if value is None:
            return None
        if value not in self.numbers:
            self.numbers[value] = None  # ends a circle, should a broken graph have one
            self.numbers[value] = self._computed(value)
        return self.numbers[value]

    def lengths_of(self, value: Value | None) -> Lengths | None:
        """What the numbers of a row of sizes are; None if it is no row."""
        if value is None or value in self.lengths:
            return self.lengths.get(value) if value is not None else None
        numbers = self.known(value)
        if numbers is not None:
            return tuple(int(number) for number in np.asarray(numbers).reshape(-1))
        shape = self.shapes.get(value.name)
        return None if shape is None or len(shape) > 1 else (None,) * math.prod(shape)

    def _computed(self, value: Value) -> Array | None:
        if value in self.index.stored:
            return small(self.index.stored[value])
        maker = self.index.makers.get(value)
        if maker is None or maker.node.domain not in STANDARD or maker.node.output[0] != value.name:
            return None
        inputs = {}
        for slot, name in enumerate(maker.node.input):
            numbers = self.known(self.index.read(maker, slot))
            if name and numbers is None:
                return None
            if numbers is not None:
                inputs[name] = numbers
        made = computed(maker.node, inputs, self.opset)
        return None if made is None else made[0]


@dataclass(frozen=True)
class Call:
    """One node."""

    reading: Reading
    place: Place

    @property
    def relations(self) -> Network:
        """Where rules state what goes together."""
        return self.reading.relations

    @property
    def opset(self) -> int:
        """Version of the standard operators."""
        return self.reading.opset

    def value(self, slot: int) -> Value | None:
        """What the node reads at a slot."""
        return self.reading.index.read(self.place, slot)

    def has(self, slot: int) -> bool:
        """Whether an optional input is given."""
        return slot < len(self.place.node.input) and bool(self.place.node.input[slot])

    def axes(self, slot: int = 0) -> Axes:
        """Axes of an input."""
        found = self.reading.axes_of(self.value(slot))
        if found is None:
            raise Unrelated
        return found

    def operands(self) -> list[Axes]:
        """Axes of all inputs."""
        return [self.axes(slot) for slot in range(len(self.place.node.input))]

    def is_stored(self, slot: int) -> bool:
        """Whether an input is a stored tensor."""
        return self.reading.is_stored(self.value(slot))

    def shape(self, output: int = 0) -> Shape:
        """Shape of an output."""
        value = Value(self.place.scope, self.place.node.output[output])
        shape = self.reading.shapes.get(value.name)
        if shape is None:
            raise Unrelated
        return shape

    def expect_one_output(self) -> None:
        """Raises ``Unrelated`` where further outputs are wanted."""
        if len([name for name in self.place.node.output if name]) > 1:
            raise Unrelated

    def numbers(self, slot: int) -> list[int] | None:
        """An input's numbers if they are always the same."""
        found = self.reading.known(self.value(slot)) if self.has(slot) else None
        return None if found is None else [int(number) for number in np.asarray(found).reshape(-1)]

    def attribute(self, name: str) -> AttributeProto | None:
        """An attribute if it is given."""
        return next((found for found in self.place.node.attribute if found.name == name), None)

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        found = self.attribute(name)
        return default if found is None else int(found.i)

    def integers(self, name: str, slot: int | None = None) -> list[int] | None:
        """Integers that are an attribute or, of newer operators, an input; None where they are left out.

        Raises:
            Unrelated: They are computed.
        """
        found = self.attribute(name)
        if found is not None:
            return list(found.ints)
        if slot is None or not self.has(slot):
            return None
        numbers = self.numbers(slot)
        if numbers is None:
            raise Unrelated
        return numbers

    def edit(self, edit: Edit) -> None:
        """Something to be rewritten if channels go."""
        self.reading.edits.append(edit)


Rule = Callable[[Call], list[Axes]]
"""Axes of the outputs in order; raises ``Unrelated`` where it does not know."""
