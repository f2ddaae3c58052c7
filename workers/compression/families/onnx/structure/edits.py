"""Numbers in a graph that repeat how many channels there are, and what they become."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from onnx import NodeProto, helper

from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.walking import Place
from workers.compression.structure.relations import Elements

Length = Callable[[Elements], int]
"""How many elements of an axis stay."""


@dataclass(frozen=True, eq=False)
class Count:
    """A number that says how many of some elements there are.

    Args:
        written: How the graph says it, which is left where nothing goes: lengths may vary from run to run.
    """

    elements: Elements
    written: int


Entry = Count | int | None
"""A number that goes by elements, one that stays, or one that the graph computes."""


class Edit(Protocol):
    """What a node needs besides smaller weights."""

    def apply(self, editor: Editor, length: Length) -> None:
        """Replaces the node if any of its numbers changes."""


@dataclass(frozen=True)
class Counted:
    """An attribute that says how many of some elements there are: groups of one channel each, or heads."""

    place: Place
    attribute: str
    elements: Elements

    def apply(self, editor: Editor, length: Length) -> None:
        """Rewrites the attribute."""
        if length(self.elements) != len(self.elements):
            node = _copy(self.place.node)
            _set_attribute(node, self.attribute, length(self.elements))
            editor.replace(self.place, [node])


@dataclass(frozen=True)
class Sizes:
    """Numbers of a ``Reshape``, an ``Expand``, a ``Split`` or of the bounds of a ``Slice``.

    Args:
        slots: By input.
        attributes: By attribute, where an older operator has one instead.
    """

    place: Place
    slots: Mapping[int, tuple[Entry, ...]]
    attributes: Mapping[str, tuple[Entry, ...]]

    def apply(self, editor: Editor, length: Length) -> None:
        """Writes the numbers anew; other nodes may read the old ones."""
        entries = [entry for row in (*self.slots.values(), *self.attributes.values()) for entry in row]
        if not any(isinstance(entry, Count) and length(entry.elements) != len(entry.elements) for entry in entries):
            return
        node, made = _copy(self.place.node), []
        for slot, row in self.slots.items():
            node.input.extend([""] * (slot + 1 - len(node.input)))
            numbers = np.array([_number(0 if entry is None else entry, length) for entry in row], np.int64)
            stored = editor.share(self.place.scope, "sizes", numbers)
            computed = np.array([entry is None for entry in row])
            if computed.any():
                mask = editor.share(self.place.scope, "computed_sizes", computed)
                chosen = editor.fresh("sizes")
                made.append(helper.make_node("Where", [mask, node.input[slot], stored], [chosen]))
                stored = chosen
            node.input[slot] = stored
        for name, row in self.attributes.items():
            _set_attribute(node, name, [_number(entry, length) for entry in row])
        editor.replace(self.place, [*made, node])
        written = [editor.index.read(self.place, slot) for slot in self.slots]
        editor.drop_unread([value for value in written if value is not None and value in editor.index.stored])


def _number(entry: Count | int | None, length: Length) -> int:
    if entry is None:
        raise TypeError("attributes are not computed")
    if isinstance(entry, int):
        return entry
    kept = length(entry.elements)
    return entry.written if kept == len(entry.elements) else kept


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _set_attribute(node: NodeProto, name: str, value: int | list[int]) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])
