"""Every graph of a model, nested ones included, and the constants that are visible in each.

Weights of real exports sit in initializers, in ``Constant`` nodes, and in either of the two inside the branches of
``If``; whoever looks for weights goes through here and sees all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, numpy_helper

from workers.compression.families.model import Array


@dataclass(frozen=True, eq=False)
class Scope:
    """One graph and the tensors it stores, by name; names not found here are looked up in ``parent``."""

    graph: GraphProto
    parent: "Scope | None" = None
    depth: int = 0
    stored: dict[str, TensorProto] = field(default_factory=dict)

    def tensor(self, name: str) -> TensorProto | None:
        """The stored tensor that ``name`` means in this graph, if it is one."""
        return self.origin(name)[1]

    def origin(self, name: str) -> tuple["Scope", TensorProto | None]:
        """Where ``name`` is stored: the graph that holds it and the tensor, or this graph and None."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.stored:
                return scope, scope.stored[name]
            scope = scope.parent
        return self, None


def scopes(graph: GraphProto, parent: Scope | None = None) -> Iterator[Scope]:
    """``graph`` and all graphs nested in it, outer ones first."""
    depth = 0 if parent is None else parent.depth + 1
    scope = Scope(graph, parent, depth, {tensor.name: tensor for tensor in graph.initializer})
    for node in graph.node:
        value = constant_value(node)
        if value is not None:
            scope.stored[node.output[0]] = value
    yield scope
    for node in graph.node:
        for nested in subgraphs(node):
            yield from scopes(nested, scope)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs a node holds in its attributes."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def constant_value(node: NodeProto) -> TensorProto | None:
    """The tensor inside a ``Constant`` node, editable in place; None for other nodes and for its short forms."""
    if node.op_type != "Constant" or node.domain not in {"", "ai.onnx"} or not node.output:
        return None
    for attribute in node.attribute:
        if attribute.name == "value":
            return attribute.t
    return None


def integer_attribute(node: NodeProto, name: str, default: int) -> int:
    """An integer attribute of ``node``."""
    for found in node.attribute:
        if found.name == name:
            return int(found.i)
    return default


def layer_name(node: NodeProto) -> str:
    """How a node is called in reports: by its own name, or by its first output where it has none."""
    return node.name or next((name for name in node.output if name), node.op_type)


def values(tensor: TensorProto) -> Array:
    """The tensor's elements as an array in its own dtype."""
    return numpy_helper.to_array(tensor)


def numel(tensor: TensorProto) -> int:
    """Number of elements by the tensor's dims."""
    return int(np.prod(tensor.dims, dtype=np.int64)) if tensor.dims else 1


def consumers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """Nodes by the names they read, those of nested graphs included."""
    found: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
        for nested in subgraphs(node):
            for name, nodes in consumers(nested).items():
                found.setdefault(name, []).extend(nodes)
    return found
