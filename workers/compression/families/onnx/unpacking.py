"""Packed codes in a graph, and the standard operators that unpack them when onnxruntime loads the model.

Codes of 1, 2, 4 and 8 bits lie in bytes, the first code in the lowest bits. Codes of 3, 5, 6 and 7 bits are split
into planes of those widths (five bits: the upper four and the last one), each packed by itself, so that every width
takes just its bits. A plane is unpacked by two shifts of bytes: left by as much as brings each of its codes to the
top, which broadcasts one byte to all of its codes, and right to the bottom. Everything is of opset 11 with static
shapes: onnxruntime folds it from 1.19 on, at the levels basic and up.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from workers.compression.coding.packing import Codes, pack, packed_size
from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.walking import Scope

PLANES: dict[int, tuple[int, ...]] = {
    1: (1,),
    2: (2,),
    3: (2, 1),
    4: (4,),
    5: (4, 1),
    6: (4, 2),
    7: (4, 2, 1),
    8: (8,),
}
"""Widths of the planes that codes of so many bits are split into, upper bits first."""

MAX_INTERMEDIATE_BYTES = 256 << 20
"""onnxruntime folds no value over 1 GiB; well below it, memory at load stays near that of the restored weights."""

UNPACKING_OPSET = 11
"""The first with ``BitShift``; ``editing.raise_opset`` before unpacking."""


def unpacked(
    editor: Editor, scope: Scope, name: str, codes: Codes, bits: int, to: int = TensorProto.INT32
) -> tuple[list[NodeProto], str]:
    """Stores ``codes`` packed and makes the nodes that give them back.

    Weights of more rows than ``row_pieces`` allows are to be unpacked piece by piece and concatenated at the end.

    Args:
        editor: Gets the packed initializers, in ``scope``.
        scope: The graph in which the codes are needed.
        name: Of the weight; what is added is called after it.
        codes: Below ``1 << bits``, in the shape in which they are needed; not empty.
        bits: 1 to 8.
        to: Element type of the result: ``TensorProto.INT32`` or ``TensorProto.FLOAT``.

    Returns:
        The nodes in order, and the name of the value of the codes' shape that the last one makes. They are meant for
        ``editor.replace_stored`` or to stand before other nodes of it.
    """
    widths = PLANES[bits]
    nodes: list[NodeProto] = []
    total = ""
    below = bits
    for width in widths:
        below -= width
        plane = ((codes >> below) & ((1 << width) - 1)).astype(np.uint8)
        made = _plane(editor, scope, name, plane, width, to)
        nodes += made
        total = made[-1].output[0] if not total else _joined(editor, scope, name, nodes, total, width, to)
    return nodes, total


def unpacked_size(count: int, bits: int) -> int:
    """Bytes that ``count`` codes take in the file."""
    return sum(packed_size(count, width) for width in PLANES[bits])


def row_pieces(shape: tuple[int, ...], element_bytes: int = 4) -> list[slice]:
    """Ranges along the first axis, each small enough that no intermediate value passes the limit."""
    row = int(np.prod(shape[1:], dtype=np.int64)) * element_bytes
    length = max(1, MAX_INTERMEDIATE_BYTES // max(row, 1))
    return [slice(start, min(start + length, shape[0])) for start in range(0, shape[0], length)]


@dataclass(frozen=True)
class _Step:
    """Makes nodes, each reading what the one before made first."""

    editor: Editor
    name: str
    nodes: list[NodeProto]

    def add(self, operator: str, *others: str, **attributes: Any) -> None:
        output = self.editor.fresh("codes")
        node = helper.make_node(operator, [self.nodes[-1].output[0], *others], [output], **attributes)
        self.nodes.append(node)


def _plane(editor: Editor, scope: Scope, name: str, plane: Codes, width: int, to: int) -> list[NodeProto]:
    """One plane, unpacked and cast."""
    packed = pack(plane, width)
    if width == 8:
        stored = editor.store(scope, f"{name}_packed", packed.reshape(plane.shape))
        return [helper.make_node("Cast", [stored], [editor.fresh("codes")], to=to)]
    share = 8 // width
    stored = editor.store(scope, f"{name}_packed", packed.reshape(-1, 1))
    lefts = editor.share(scope, f"left_{width}", np.arange(8 - width, -1, -width, dtype=np.uint8))
    right = editor.share(scope, f"right_{width}", np.array([8 - width], np.uint8))
    first = helper.make_node("BitShift", [stored, lefts], [editor.fresh("codes")], direction="LEFT")
    steps = _Step(editor, name, [first])
    steps.add("BitShift", right, direction="RIGHT")
    if packed.size * share != plane.size:
        steps.add("Reshape", editor.share(scope, "flat", np.array([-1], np.int64)))
        bounds = (
            editor.share(scope, "from", np.array([0], np.int64)),
            editor.share(scope, "to", np.array([plane.size], np.int64)),
        )
        steps.add("Slice", *bounds)
    steps.add("Reshape", editor.share(scope, "shape", np.array(plane.shape, np.int64)))
    steps.add("Cast", to=to)
    return steps.nodes


def _joined(editor: Editor, scope: Scope, name: str, nodes: list[NodeProto], upper: str, width: int, to: int) -> str:
    """The codes of which ``upper`` are the upper bits and the last node's the ``width`` lower ones."""
    lower = nodes[-1].output[0]
    dtype = helper.tensor_dtype_to_np_dtype(to)
    factor = editor.share(scope, f"times_{1 << width}", np.array(1 << width, dtype))
    raised, total = (editor.fresh("codes") for _ in range(2))
    nodes.append(helper.make_node("Mul", [upper, factor], [raised]))
    nodes.append(helper.make_node("Add", [raised, lower], [total]))
    return total
