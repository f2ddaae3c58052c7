"""Every graph of a model, nested ones included, and who reads what in them.

Weights of real exports sit in initializers, in ``Constant`` nodes, and in either of the two inside the branches of
``If``; branches also read what outer graphs store. Whoever looks for weights goes through here and sees all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from workers.compression.families.model import Array

STANDARD = frozenset({"", "ai.onnx"})


@dataclass(frozen=True, eq=False)
class Scope:
    """One graph, the tensors it stores and the names it defines; other names are looked up in ``parent``.

    ``holder`` is the node of ``parent`` whose attribute the graph is.
    """

    graph: GraphProto
    parent: "Scope | None"
    holder: NodeProto | None
    stored: dict[str, TensorProto]
    defined: frozenset[str]

    def home(self, name: str) -> "Scope | None":
        """The graph that defines ``name`` as seen from here."""
        scope: Scope | None = self
        while scope is not None and name not in scope.defined:
            scope = scope.parent
        return scope


@dataclass(frozen=True, eq=False)
class Place:
    """A node, the graph it stands in and where."""

    scope: Scope
    node: NodeProto
    position: int


@dataclass(frozen=True)
class Value:
    """A named value of one particular graph; siblings may use one name for two values."""

    scope: Scope
    name: str


@dataclass(frozen=True)
class Reader:
    """A node's input slot."""

    place: Place
    slot: int


@dataclass
class Index:
    """Places in order of execution, for each value what stores, makes and reads it, and the versions of operators.

    ``folded`` is what ``folding`` has found out.
    """

    scopes: list[Scope] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    stored: dict[Value, TensorProto] = field(default_factory=dict)
    makers: dict[Value, Place] = field(default_factory=dict)
    readers: dict[Value, list[Reader]] = field(default_factory=dict)
    outputs: set[Value] = field(default_factory=set)
    opsets: dict[str, int] = field(default_factory=dict)
    folded: dict[Place, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, proto: ModelProto) -> "Index":
        """Indexes a model; edits to it are not seen afterwards."""
        index = cls(opsets={opset.domain: opset.version for opset in proto.opset_import})
        index._add(proto.graph, None, None)
        return index

    def value(self, scope: Scope, name: str) -> Value | None:
        """What ``name`` means in ``scope``; None for an omitted input."""
        home = scope.home(name) if name else None
        return Value(home, name) if home is not None else None

    def tensor(self, place: Place, slot: int) -> TensorProto | None:
        """The stored tensor that a node reads at ``slot`` directly."""
        value = self.read(place, slot)
        return self.stored.get(value) if value is not None else None

    def read(self, place: Place, slot: int) -> Value | None:
        """The value that a node reads at ``slot``."""
        return self.value(place.scope, place.node.input[slot]) if slot < len(place.node.input) else None

    def made(self, place: Place) -> Value:
        """A node's first output."""
        return Value(place.scope, place.node.output[0])

    def _add(self, graph: GraphProto, parent: Scope | None, holder: NodeProto | None) -> None:
        scope = _scope(graph, parent, holder)
        self.scopes.append(scope)
        self.stored.update({Value(scope, name): tensor for name, tensor in scope.stored.items()})
        for position, node in enumerate(graph.node):
            place = Place(scope, node, position)
            self.places.append(place)
            self.makers.update({Value(scope, name): place for name in node.output if name})
            for slot in range(len(node.input)):
                value = self.read(place, slot)
                if value is not None:
                    self.readers.setdefault(value, []).append(Reader(place, slot))
            for nested in subgraphs(node):
                self._add(nested, scope, node)
        for output in graph.output:
            value = self.value(scope, output.name)
            if value is not None:
                self.outputs.add(value)


def _scope(graph: GraphProto, parent: Scope | None, holder: NodeProto | None) -> Scope:
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        constant = constant_value(node)
        if constant is not None:
            stored[node.output[0]] = constant
    defined = {name for node in graph.node for name in node.output if name}
    defined.update(value.name for value in graph.input)
    defined.update(sparse.values.name for sparse in graph.sparse_initializer)
    return Scope(graph, parent, holder, stored, frozenset(defined | stored.keys()))


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs a node holds in its attributes."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def constant_value(node: NodeProto) -> TensorProto | None:
    """The tensor inside a ``Constant`` node, editable in place; None for other nodes and for its short forms."""
    if node.op_type != "Constant" or node.domain not in STANDARD or not node.output:
        return None
    return next((found.t for found in node.attribute if found.name == "value"), None)


def integer_attribute(node: NodeProto, name: str, default: int) -> int:
    """An integer attribute of ``node``."""
    return next((int(found.i) for found in node.attribute if found.name == name), default)


def float_attribute(node: NodeProto, name: str, default: float) -> float:
    """A float attribute of ``node``."""
    return next((float(found.f) for found in node.attribute if found.name == name), default)


def layer_name(node: NodeProto) -> str:
    """How a node is called in reports: by its own name, or by its first output where it has none."""
    return node.name or next((name for name in node.output if name), node.op_type)


def array(tensor: TensorProto) -> Array:
    """The tensor's elements in its own dtype."""
    return numpy_helper.to_array(tensor)


def numel(tensor: TensorProto) -> int:
    """Number of elements by the tensor's dims."""
    return int(np.prod(tensor.dims, dtype=np.int64)) if tensor.dims else 1
