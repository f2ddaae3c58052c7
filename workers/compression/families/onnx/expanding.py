"""Turns a model that expands itself into one that stores the same weights densely: larger, and quicker to load."""

from collections.abc import Callable

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from workers.compression.families.onnx.expansions import Expansion, expansions
from workers.compression.families.onnx.folding import FOLDABLE
from workers.compression.families.onnx.walking import STANDARD, Index, Scope, Value, subgraphs

_PACKED = frozenset(
    {TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT4, TensorProto.INT4, TensorProto.FLOAT16}
    | {TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2}
)


def is_packed(expansion: Expansion) -> bool:
    """Whether narrower numbers are restored, and not by what a layer that computes on integers is made of."""
    if any(place.node.op_type == "DequantizeLinear" for place in expansion.places):
        return False
    return any(expansion.index.stored[leaf].data_type in _PACKED for leaf in expansion.leaves)


def expand(proto: ModelProto, chosen: Callable[[Expansion], bool] = is_packed) -> int:
    """Stores what packed weights restore to, bit for bit, in place of the packed weights; in place.

    Args:
        chosen: Which of them; by default all but integer weights of layers that compute on integers.

    Returns:
        How many weights were expanded.
    """
    index = Index.of(proto)
    found = [expansion for expansion in expansions(index) if chosen(expansion)]
    tables: dict[tuple[Value, ...], str] = {}
    dense: dict[Scope, list[TensorProto]] = {}
    replaced: dict[tuple[Scope, int], list[NodeProto]] = {}
    for expansion in found:
        value, maker = expansion.value, index.makers[expansion.value]
        scope, name, nodes = value.scope, value.name, list[NodeProto]()
        if expansion.positions is not None:
            scope, rows = expansion.leaves[0].scope, expansion.positions[0].name
            name = tables.get(expansion.leaves, f"{value.name}_table")
            nodes = [helper.make_node("Gather", [name, rows], [value.name], name=maker.node.name or value.name, axis=0)]
        if expansion.positions is None or expansion.leaves not in tables:
            dense.setdefault(scope, []).append(numpy_helper.from_array(expansion.computed(), name))
        if expansion.positions is not None:
            tables[expansion.leaves] = name
        replaced[value.scope, maker.position] = nodes
    for scope in index.scopes:
        kept = [replaced.get((scope, position), [node]) for position, node in enumerate(scope.graph.node)]
        _set_nodes(scope.graph, [node for nodes in kept for node in nodes])
        scope.graph.initializer.extend(dense.get(scope, []))
    while _drop_unread(proto.graph, frozenset()):
        pass
    return len(found)


def _set_nodes(graph: GraphProto, nodes: list[NodeProto]) -> None:
    del graph.node[:]
    graph.node.extend(nodes)


def _drop_unread(graph: GraphProto, outer: frozenset[str]) -> bool:
    """Removes stored tensors and restoring nodes that nothing reads, nested graphs first; whether there were any."""
    changed = sum(_drop_unread(nested, frozenset()) for node in graph.node for nested in subgraphs(node)) > 0
    read = outer | _read_in(graph) | {output.name for output in graph.output}
    nodes = [node for node in graph.node if not _is_idle(node, read)]
    stored = [tensor for tensor in graph.initializer if tensor.name in read]
    changed |= len(nodes) < len(graph.node) or len(stored) < len(graph.initializer)
    _set_nodes(graph, nodes)
    del graph.initializer[:]
    graph.initializer.extend(stored)
    return changed


def _read_in(graph: GraphProto) -> set[str]:
    """Names that nodes of a graph and of those inside it read."""
    read = {name for node in graph.node for name in node.input}
    for node in graph.node:
        for nested in subgraphs(node):
            read |= _read_in(nested) | {output.name for output in nested.output}
    return read


def _is_idle(node: NodeProto, read: set[str] | frozenset[str]) -> bool:
    restoring = node.op_type in FOLDABLE | {"Constant"} and node.domain in STANDARD
    return restoring and not any(name in read for name in node.output)
