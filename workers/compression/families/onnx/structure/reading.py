"""The units of an ONNX graph, and the graph without some of them."""

from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from workers.compression.families.model import Feeds
from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.shapes import value_shapes
from workers.compression.families.onnx.structure.call import Call, Reading
from workers.compression.families.onnx.structure.edits import Edit
from workers.compression.families.onnx.structure.lengths import follow_lengths, lock_lengths
from workers.compression.families.onnx.structure.operators.attention import ATTENTION
from workers.compression.families.onnx.structure.operators.elementwise import ELEMENTWISE
from workers.compression.families.onnx.structure.operators.products import PRODUCTS
from workers.compression.families.onnx.structure.operators.shapes import SHAPES
from workers.compression.families.onnx.walking import STANDARD, Place, Value, array, subgraphs
from workers.compression.structure.network import Unrelated
from workers.compression.structure.relations import Axes, fixed, sizes
from workers.compression.structure.units import Removed, Structure

_RULES = ATTENTION | PRODUCTS | ELEMENTWISE | SHAPES


@dataclass(frozen=True)
class OnnxStructure:
    """A graph's units and the numbers in it that depend on them; for as long as only stored values change."""

    structure: Structure
    edits: tuple[Edit, ...]
    editor: Editor

    def shrink(self, proto: ModelProto, removed: Removed) -> None:
        """Takes units out of the graph, in place."""
        structure, editor = self.structure, self.editor
        for edit in self.edits:
            edit.apply(editor, lambda axis: structure.length(axis, removed))
        for value, tensor in editor.index.stored.items():
            axes = structure.stored.get(value.name) if value.scope is editor.index.scopes[0] else None
            if axes is not None:
                _cut(tensor, [structure.kept(axis, removed) for axis in axes])
        editor.apply()
        stored = {tensor.name for tensor in proto.graph.initializer}
        inputs = [value for value in proto.graph.input if value.name not in stored]
        del proto.graph.value_info[:], proto.graph.input[:]
        proto.graph.input.extend(inputs)


def _cut(tensor: TensorProto, kept: "list[np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]") -> None:
    if all(mask.all() for mask in kept):
        return
    values = array(tensor)[np.ix_(*kept)]
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))


def read_structure(proto: ModelProto, feeds: Feeds) -> OnnxStructure:
    """Follows every axis of every value through the main graph.

    What an operator without a rule touches stays, as does what nested graphs read, and the model's outputs.

    Args:
        proto: Vectors that several nodes read are stored once for each (see ``give_vectors_owners``).
        feeds: One row; lengths that may vary should be ones that no other axis has.
    """
    editor = Editor(proto)
    index = editor.index
    reading = Reading(index, value_shapes(proto, index, feeds))
    main = index.scopes[0]
    for place in index.places:
        if place.scope is main and index.made(place) not in index.stored:
            _follow(reading, place)
    for value, axes in reading.axes.items():
        nested = any(reader.place.scope is not main for reader in index.readers.get(value, ()))
        if nested or value in index.outputs:
            reading.relations.lock(*axes)
            lock_lengths(reading, value)
    stored = {value.name: axes for value, axes in reading.stored.items()}
    return OnnxStructure(reading.relations.structure(stored), tuple(reading.edits), editor)


def _follow(reading: Reading, place: Place) -> None:
    node = place.node
    rule = _RULES.get(node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}")
    kept = len(reading.edits), len(reading.relations.products)
    made = None
    if rule is not None and not any(subgraphs(node)):
        try:
            made = _checked(reading, place, rule(Call(reading, place)))
        except (Unrelated, IndexError, ValueError):  # numbers of axes that no rule expects
            del reading.edits[kept[0] :], reading.relations.products[kept[1] :]
    follow_lengths(reading, place, related=made is not None)
    if made is None:
        made = _stays(reading, place)
    for name, axes in zip(node.output, made, strict=True):
        if name and axes is not None:
            reading.axes[Value(place.scope, name)] = axes


def _checked(reading: Reading, place: Place, made: list[Axes]) -> list[Axes | None]:
    """Rules that were mistaken about a shape relate nothing."""
    for name, axes in zip(place.node.output, made, strict=True):
        if reading.shapes.get(name, sizes(axes)) != sizes(axes):
            raise Unrelated
        reading.relations.lock(*(axis for axis in axes if len(axis) == 1))  # nothing would be left of it
    return list(made)


def _stays(reading: Reading, place: Place) -> list[Axes | None]:
    for slot in range(len(place.node.input)):
        axes = reading.axes_of(reading.index.read(place, slot))
        reading.relations.lock(*(axes or ()))
    shapes = [reading.shapes.get(name) for name in place.node.output]
    return [None if shape is None else fixed(shape) for shape in shapes]


def give_vectors_owners(proto: ModelProto) -> None:
    """Stores a vector once for each node that reads it, in place.

    Exporters store equal vectors once, such as biases of zeros; layers that have nothing else in common would be cut
    together.
    """
    editor = Editor(proto)
    main = editor.index.scopes[0]
    for value, tensor in editor.index.stored.items():
        readers = editor.index.readers.get(value, [])
        vector = tensor.data_type == TensorProto.FLOAT and sum(size > 1 for size in tensor.dims) == 1
        if vector and value.scope is main and value not in editor.index.outputs:
            for reader in readers[1:]:
                if reader.place.scope is main:
                    reader.place.node.input[reader.slot] = editor.store(main, value.name, array(tensor))
    editor.apply()
