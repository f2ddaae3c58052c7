"""Nodes in a row that restore a weight from how it is stored."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from workers.compression.coding.packing import Codes
from workers.compression.families.model import Array
from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.unpacking import unpacked
from workers.compression.families.onnx.walking import Scope

_SMALLEST_PACKED = 64
"""Fewer codes than these take less as bytes than the nodes that unpack them do."""


class Chain:
    """Collects nodes of one graph; each makes one new value.

    Args:
        name: Of the weight; what is stored for it is called after it. Values in between have short names, for every
            name stands in the file twice.
    """

    def __init__(self, editor: Editor, scope: Scope, name: str) -> None:
        self.editor = editor
        self.scope = scope
        self.name = name
        self.nodes: list[NodeProto] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Appends a node; returns what it makes."""
        made = self.editor.fresh("restored")
        self.nodes.append(helper.make_node(operator, inputs, [made], **attributes))
        return made

    def ending(self, name: str) -> list[NodeProto]:
        """All nodes, the last of which makes ``name``."""
        self.nodes[-1].output[0] = name
        return self.nodes

    def store(self, part: str, values: Array) -> str:
        """An initializer of the weight's own."""
        return self.editor.store(self.scope, f"{self.name}_{part}", values)

    def share(self, name: str, values: Array) -> str:
        """An initializer of the chain's graph, one for all that ask for the same values."""
        return self.editor.share(self.scope, name, values)

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        """``value`` in another shape."""
        return self.add("Reshape", value, self.share("shape", np.array(shape, np.int64)))

    def look_up(self, table: str, rows: str, name: str = "") -> str:
        """Rows of a table; ``name`` is the node's."""
        found = self.add("Gather", table, rows, axis=0)
        self.nodes[-1].name = name
        return found

    def first(self, value: str, count: int, axis: int) -> str:
        """The first elements along an axis."""
        bounds = (("from", 0), ("to", count), ("axis", axis))
        return self.add("Slice", value, *(self.share(part, np.array([at], np.int64)) for part, at in bounds))

    def floats(self, part: str, values: Array, *, shared: bool = False) -> str:
        """Stores float32 values, in half precision where that holds every one of them exactly.

        Args:
            shared: Whether other weights that have the same values read the same initializer.
        """
        halves = _halves(values)
        stored = values.astype(np.float32, copy=False) if halves is None else halves
        name = self.share(f"{self.name}_{part}", stored) if shared else self.store(part, stored)
        return name if halves is None else self.add("Cast", name, to=TensorProto.FLOAT)

    def codes(self, part: str, codes: Codes, bits: int) -> str:
        """Stores codes below ``1 << bits`` in as many bits; gives them as float32 in the same shape."""
        if codes.size < _SMALLEST_PACKED:
            return self.add("Cast", self.store(part, codes), to=TensorProto.FLOAT)
        nodes, made = unpacked(self.editor, self.scope, f"{self.name}_{part}", codes, bits, TensorProto.FLOAT)
        self.nodes += nodes
        return made


def _halves(values: Array) -> Array | None:
    """``values`` in half precision, if several and all of them are exact in it."""
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    return halves if values.size > 1 and np.array_equal(halves.astype(np.float32), values) else None
