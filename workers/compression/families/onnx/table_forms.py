"""Embedding tables as packed rows: a row is unpacked and restored when it is looked up, the table never expands.

Scales, zero points and offsets, a few per row, are restored at load. What else reads the table, such as an output
projection tied to it, gets the whole of it, folded at load from the same packed rows.

A row's codes lie ``bytes`` apart in a byte, not side by side: shifting a row of bytes by each distance then gives long
runs of codes, which onnxruntime does several times faster than runs of two. Looking up 512 rows of 384 values, 4 bits
in groups of 32, takes 0.8 ms on one thread; ``GatherBlockQuantized``, which only newer runtimes have and not for all
widths, takes 0.5 ms, a float table 0.2 ms, and the rest of an encoder of six layers 190 ms.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from workers.compression.coding.packing import Codes
from workers.compression.families.onnx.chains import Chain
from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.uniform_forms import Coded, ParameterNames, arithmetic, as_stored, parameters
from workers.compression.families.onnx.unpacking import PLANES
from workers.compression.families.onnx.walking import Place, Value, layer_name
from workers.compression.families.weights import Weight
from workers.compression.quantization.uniform import UniformWeight


class PackedRows:
    """The rows of a table of codes, packed each by itself.

    Args:
        chain: Gets the initializers.
        codes: Shape (rows, columns), below ``1 << bits``.
    """

    def __init__(self, chain: Chain, codes: Codes, bits: int) -> None:
        self._columns = codes.shape[1]
        self._planes: list[tuple[str, int]] = []
        below = bits
        for width in PLANES[bits]:
            below -= width
            plane = ((codes >> below) & ((1 << width) - 1)).astype(np.uint8)
            self._planes.append((chain.store("packed", _pack_rows(plane, width)), width))

    def unpacked(self, chain: Chain, rows: str | None, name: str = "") -> str:
        """Codes as float32, shape (rows, columns).

        Args:
            rows: Positions of the rows, flat; all rows if None.
            name: Of the node that looks them up.
        """
        total = ""
        for stored, width in self._planes:
            found = stored
            if rows is not None:
                found = chain.look_up(stored, rows, name if not total else f"{name}/{width}")
            plane = chain.add("Cast", self._codes(chain, found, width), to=TensorProto.FLOAT)
            if total:
                factor = chain.share("times", np.array(1 << width, np.float32))
                plane = chain.add("Add", chain.add("Mul", total, factor), plane)
            total = plane
        return total

    def _codes(self, chain: Chain, packed: str, width: int) -> str:
        if width == 8:
            return packed
        share = 8 // width
        size = -(-self._columns // share) * share
        lefts = np.arange(8 - width, -1, -width, dtype=np.uint8)[:, None]
        raised = chain.add("BitShift", packed, chain.share("left", lefts), direction="LEFT")
        right = chain.share("right", np.array([8 - width], np.uint8))
        codes = chain.reshape(chain.add("BitShift", raised, right, direction="RIGHT"), (-1, size))
        return codes if size == self._columns else chain.first(codes, self._columns, axis=1)


@dataclass(frozen=True)
class _RowParameters:
    """Names of zero points, scales and offsets in float, and which of them have a row for each of the table's."""

    names: ParameterNames
    by_row: frozenset[str]

    @classmethod
    def of(cls, chain: Chain, coded: Coded) -> "_RowParameters":
        """Stores them; parameters that several rows share are repeated at load."""
        (count, groups), height = coded.blocks.counts, coded.blocks.lengths[0]
        inner = (groups, 1) if groups > 1 else (1,)
        names = parameters(chain, coded, (count, *inner))
        single = names.zeros if coded.zeros is not None and (coded.zeros == coded.zeros.flat[0]).all() else None
        if count > 1 and height > 1:
            names = names.changed(lambda name: name if name == single else cls._repeated(chain, name, coded, inner))
        varying = [name for name in names if name is not None and name != single]
        return cls(names, frozenset(varying) if count > 1 else frozenset())

    def names_for(self, chain: Chain, rows: str) -> ParameterNames:
        """Those of some rows."""
        return self.names.changed(lambda name: chain.look_up(name, rows) if name in self.by_row else name)

    @staticmethod
    def _repeated(chain: Chain, name: str, coded: Coded, inner: tuple[int, ...]) -> str:
        (count, _), height, rows = coded.blocks.counts, coded.blocks.lengths[0], coded.blocks.shape[0]
        shape = chain.share("shape", np.array((count, height, *inner), np.int64))
        spread = chain.add("Expand", chain.reshape(name, (count, 1, *inner)), shape)
        repeated = chain.reshape(spread, (count * height, *inner))
        return repeated if count * height == rows else chain.first(repeated, rows, axis=0)


def store_table(editor: Editor, value: Value, weight: Weight, form: UniformWeight, lookups: Sequence[Place]) -> None:
    """Stores a table that rows are looked up in.

    Args:
        lookups: The ``Gather`` nodes along its first axis; other readers may be there too.
    """
    coded = Coded.of(form)
    head = Chain(editor, value.scope, value.name)
    packed = PackedRows(head, coded.codes, coded.bits)
    row_parameters = _RowParameters.of(head, coded)

    def looked_up(chain: Chain, rows: str, name: str) -> str:
        codes = packed.unpacked(chain, rows, name)
        return _restored(chain, codes, coded, row_parameters.names_for(chain, rows))

    for place in lookups:
        look_up(editor, place, coded.blocks.shape[1], looked_up)
    if len(editor.index.readers.get(value, [])) > len(lookups):
        as_stored(head, _restored(head, packed.unpacked(head, None), coded, row_parameters.names), weight)
        head.ending(value.name)
    editor.replace_stored(value, head.nodes)


def look_up(editor: Editor, place: Place, columns: int, restore: Callable[[Chain, str, str], str]) -> None:
    """Replaces a ``Gather`` by nodes that restore just the rows it looks up.

    Args:
        columns: Width of the table.
        restore: Gets a chain, the rows' positions, flat, and a name for the node that looks them up; returns the rows,
            shape (rows, columns).
    """
    node = place.node
    chain = Chain(editor, place.scope, node.output[0])
    restored = restore(chain, chain.reshape(node.input[1], (-1,)), layer_name(node))
    width = chain.share("width", np.array([columns], np.int64))
    chain.add("Reshape", restored, chain.add("Concat", chain.add("Shape", node.input[1]), width, axis=0))
    editor.replace(place, chain.ending(node.output[0]))


def _restored(chain: Chain, codes: str, coded: Coded, names: ParameterNames) -> str:
    """Rows of values, shape (rows, columns)."""
    columns, groups, length = coded.blocks.shape[1], coded.blocks.counts[1], coded.blocks.lengths[1]
    if groups == 1:
        return arithmetic(chain, codes, names)
    lacking = groups * length - columns
    if lacking:
        codes = chain.add("Pad", codes, chain.share("pads", np.array([0, 0, 0, lacking], np.int64)))
    values = arithmetic(chain, chain.reshape(codes, (-1, groups, length)), names)
    rows = chain.reshape(values, (-1, groups * length))
    return chain.first(rows, columns, axis=1) if lacking else rows


def _pack_rows(plane: Codes, width: int) -> Codes:
    """Each row's codes in bytes, shape (rows, 1, bytes); (rows, columns) where a code is a byte."""
    if width == 8:
        return plane
    rows, columns = plane.shape
    share = 8 // width
    padded = np.zeros((rows, -(-columns // share) * share), np.uint8)
    padded[:, :columns] = plane
    shifts = (np.arange(share, dtype=np.uint8) * width)[:, None].astype(np.uint8)
    return np.asarray(np.bitwise_or.reduce(padded.reshape(rows, share, -1) << shifts, axis=1, keepdims=True), np.uint8)
