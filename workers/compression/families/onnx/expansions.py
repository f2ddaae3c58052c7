"""What nodes compute with, found through the operators that restore it, and its values.

Whoever wrote a chain of foldable operators, onnxruntime says what comes out of it: it runs just that chain.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from workers.compression.families.model import Array
from workers.compression.families.onnx.folding import CODES, FOLDABLE, folds
from workers.compression.families.onnx.sessions import open_session, run_session
from workers.compression.families.onnx.walking import STANDARD, Index, Place, Value
from workers.compression.specs.errors import InvalidModel, UnsupportedOperator

_IR_VERSION = 10
_TABLES = CODES | {TensorProto.FLOAT16, TensorProto.BFLOAT16}
_ARRANGING = frozenset({"BitShift", "CumSum", "Expand", "Pad", "Reshape", "Slice", "Squeeze", "Unsqueeze"})
"""What these read behind their first input says how to arrange it."""


@dataclass(frozen=True, eq=False)
class Expansion:
    """A value and what it is computed from.

    Args:
        places: The nodes, in order of execution.
        leaves: The stored tensors whose elements go into it, each once.
        arrangement: The stored tensors that say how: shapes, distances, axes.
        positions: The value that says which rows are looked up, and how many there are; None if all of it is folded.
    """

    index: Index
    value: Value
    places: tuple[Place, ...]
    leaves: tuple[Value, ...]
    arrangement: tuple[Value, ...]
    positions: tuple[Value, int] | None = None

    @property
    def multiplies(self) -> bool:
        """Whether something is scaled, not only re-arranged and cast."""
        return any(place.node.op_type == "Mul" for place in self.places)

    def restored(self, _: Array) -> npt.NDArray[np.float32] | None:
        """The value in float32; None where onnxruntime cannot compute it alone."""
        try:
            return self.computed().astype(np.float32)
        except (InvalidModel, UnsupportedOperator):
            return None

    def computed(self) -> Array:
        """The value; of a table, all rows in order."""
        stored = {value.name: self.index.stored[value] for value in (*self.leaves, *self.arrangement)}
        initializers = []
        for name, tensor in stored.items():
            kept = TensorProto()
            kept.CopyFrom(tensor)
            kept.name = name
            initializers.append(kept)
        if self.positions is not None:
            initializers.append(numpy_helper.from_array(np.arange(self.positions[1]), self.positions[0].name))
        nodes: list[NodeProto] = [place.node for place in self.places]
        graph = helper.make_graph(nodes, "expansion", [], [ValueInfoProto(name=self.value.name)], initializers)
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.index.opsets.items()]
        return _run(helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION), self.value.name)


def expansions(index: Index) -> Iterator[Expansion]:
    """All values that nodes compute with and that are themselves computed from stored tensors alone."""
    seen: set[Value] = set()
    for place in index.places:
        if folds(index, place):
            continue
        for slot in range(len(place.node.input)):
            value = index.read(place, slot)
            if value is None or value in seen or value in index.stored:
                continue
            seen.add(value)
            maker = index.makers.get(value)
            if maker is not None and folds(index, maker):
                yield _expansion(index, value, frozenset())
        found = _lookup(index, place)
        if found is not None:
            yield found


def _lookup(index: Index, place: Place) -> Expansion | None:
    """The rows that a ``Gather`` of packed rows begins to restore, up to where they get the positions' shape."""
    table, positions = index.tensor(place, 0), index.read(place, 1)
    if not _gathers(place) or table is None or table.data_type not in _TABLES or positions is None:
        return None
    rows = {index.made(place): place}
    for following in index.places:
        if following.scope is not place.scope or following.position <= place.position:
            continue
        inputs = [index.read(following, slot) for slot in range(len(following.node.input))]
        if _gathers(following) and inputs[1] == positions and _is_constant(index, inputs[0]):
            rows[index.made(following)] = following
        elif not any(value in rows for value in inputs) or following.node.op_type not in FOLDABLE:
            continue
        elif all(value is None or value in rows or _is_constant(index, value) for value in inputs):
            rows[index.made(following)] = following
        elif following.node.op_type == "Reshape" and inputs[0] in rows:
            return _expansion(index, inputs[0], frozenset({positions}), (positions, table.dims[0]))
        else:
            return None
    return None


def _gathers(place: Place) -> bool:
    return place.node.op_type == "Gather" and place.node.domain in STANDARD


def _is_constant(index: Index, value: Value | None) -> bool:
    if value is None or value in index.stored:
        return value is not None
    maker = index.makers.get(value)
    return maker is not None and (maker.node.op_type == "Constant" or folds(index, maker))


def _expansion(
    index: Index, value: Value, ends: frozenset[Value], positions: tuple[Value, int] | None = None
) -> Expansion:
    places: set[Place] = set()
    leaves: dict[Value, None] = {}
    arrangement: dict[Value, None] = {}
    waiting: list[tuple[Value, dict[Value, None]]] = [(value, leaves)]
    while waiting:
        current, found = waiting.pop()
        if current in index.stored:
            found[current] = None
        if current in index.stored or current in ends or index.makers[current] in places:
            continue
        place = index.makers[current]
        places.add(place)
        for slot in reversed(range(len(place.node.input))):
            read = index.read(place, slot)
            if read is not None:
                waiting.append((read, arrangement if slot and place.node.op_type in _ARRANGING else found))
    in_order = tuple(place for place in index.places if place in places)
    only_arranging = tuple(found for found in arrangement if found not in leaves)
    return Expansion(index, value, in_order, tuple(leaves), only_arranging, positions)


def _run(proto: ModelProto, output: str) -> Array:
    return run_session(open_session(proto.SerializeToString()), [output], {})[0]
