"""Expands a model's own functions, whose calls multiply: the expanded size is computed before anything is expanded."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from onnx import FunctionProto, ModelProto, NodeProto, inliner

from workers.compression.families.onnx.stored import check_tensor
from workers.compression.families.onnx.walking import STANDARD, subgraphs
from workers.compression.specs.errors import InvalidModel, TooLarge, UnsafeModel

MAX_NODES = 50_000
MAX_BYTES = (2 << 30) - 1
MAX_DEPTH = 64

_Key = tuple[str, str, str]


@dataclass(frozen=True)
class _Size:
    nodes: int = 0
    bytes: int = 0

    def __add__(self, other: "_Size") -> "_Size":
        return _Size(self.nodes + other.nodes, self.bytes + other.bytes)


def inline(proto: ModelProto) -> ModelProto:
    """The model without functions of its own; the same object where it has none.

    Raises:
        UnsafeModel: A function calls itself or takes a standard operator's name.
        TooLarge: Expanded, the graph would pass the limits.
    """
    if not proto.functions:
        return proto
    functions = {_key(function): function for function in proto.functions}
    if any(domain in STANDARD for domain, _, _ in functions):
        raise UnsafeModel("A function takes the place of a standard operator.", reason="onnx_functions_refused")
    for function in proto.functions:
        _check_tensors(function.node)
    total = _Sizes(functions).of_nodes(proto.graph.node, 0)
    if total.nodes > MAX_NODES or total.bytes > MAX_BYTES:
        raise TooLarge(
            f"With its functions expanded, the graph has {total.nodes} nodes; {MAX_NODES} are the limit.",
            reason="onnx_too_many_nodes",
        )
    try:
        expanded: ModelProto = inliner.inline_local_functions(proto)
    except (RuntimeError, ValueError) as error:
        raise InvalidModel("The model's functions cannot be expanded.", reason="onnx_invalid") from error
    return expanded


@dataclass
class _Sizes:
    """Expanded sizes, each function's computed once."""

    functions: dict[_Key, FunctionProto]
    _known: dict[_Key, _Size] = field(default_factory=dict)
    _open: set[_Key] = field(default_factory=set)

    def of_nodes(self, nodes: Sequence[NodeProto], depth: int) -> _Size:
        total = _Size()
        for node in nodes:
            key = (node.domain, node.op_type, node.overload)
            total += self._of_function(key, depth) if key in self.functions else _Size(1, node.ByteSize())
            for nested in subgraphs(node):
                total += self.of_nodes(nested.node, depth)
        return total

    def _of_function(self, key: _Key, depth: int) -> _Size:
        if key in self._open or depth > MAX_DEPTH:
            raise UnsafeModel(
                f"Function {key[1][:200]!r} calls itself or is called too deep.", reason="onnx_functions_refused"
            )
        if key not in self._known:
            self._open.add(key)
            self._known[key] = self.of_nodes(self.functions[key].node, depth + 1)
            self._open.discard(key)
        return self._known[key]


def _check_tensors(nodes: Sequence[NodeProto]) -> None:
    """Checks the tensors of functions that nobody calls too: expansion drops those without a look."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                check_tensor(attribute.t)
            for tensor in attribute.tensors:
                check_tensor(tensor)
        for nested in subgraphs(node):
            for tensor in nested.initializer:
                check_tensor(tensor)
            _check_tensors(nested.node)


def _key(function: FunctionProto) -> _Key:
    return function.domain, function.name, function.overload
