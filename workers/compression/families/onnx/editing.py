"""Edits to a model's graphs, collected first and applied at once, so that positions stay valid meanwhile."""

from typing import Any

from google.protobuf.message import Message
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, version_converter

from workers.compression.families.model import Array
from workers.compression.families.onnx.walking import STANDARD, Index, Place, Scope, Value, constant_value
from workers.compression.specs.errors import UnsupportedTechnique

_FIRST_IR_WITHOUT_INPUT_RULE = 4
"""Before it, every initializer had to be an input too."""


class Editor:
    """Replaces nodes and stored tensors of one model, nested graphs included."""

    def __init__(self, proto: ModelProto) -> None:
        self.index = Index.of(proto)
        self._proto = proto
        self._names = {name for scope in self.index.scopes for name in scope.defined}
        self._replaced: dict[Place, list[NodeProto]] = {}
        self._heads: dict[Scope, list[NodeProto]] = {}
        self._added: dict[Scope, list[TensorProto]] = {}
        self._removed: set[Value] = set()
        self._shared: dict[tuple[Scope, str, tuple[int, ...], bytes], str] = {}

    def fresh(self, name: str) -> str:
        """``name``, or ``name`` with a number, such that no graph uses it yet."""
        candidate, count = name, 1
        while candidate in self._names:
            count += 1
            candidate = f"{name}_{count}"
        self._names.add(candidate)
        return candidate

    def store(self, scope: Scope, name: str, values: Array) -> str:
        """Adds an initializer; returns the name it got."""
        fresh = self.fresh(name)
        self._added.setdefault(scope, []).append(numpy_helper.from_array(values, fresh))
        return fresh

    def share(self, scope: Scope, name: str, values: Array) -> str:
        """An initializer, one for all in a graph that ask for the same values.

        Shape inference looks for shapes in a nested graph's own initializers only.
        """
        key = (scope, str(values.dtype), values.shape, values.tobytes())
        if key not in self._shared:
            self._shared[key] = self.store(scope, name, values)
        return self._shared[key]

    def replace(self, place: Place, nodes: list[NodeProto]) -> None:
        """Puts ``nodes`` where a node stood."""
        self._replaced[place] = nodes

    def replace_stored(self, value: Value, nodes: list[NodeProto]) -> None:
        """Computes ``value`` by ``nodes`` (the last one makes its name, if it is still read) instead of storing it."""
        self._heads.setdefault(value.scope, []).extend(nodes)
        self._removed.add(value)

    def import_domain(self, domain: str) -> None:
        """Declares the domain of operators that are not standard."""
        import_domain(self._proto, domain, 1)

    def drop_unread(self, values: list[Value]) -> None:
        """Removes stored tensors whose every reader has been replaced by nodes that do not read them."""
        for value in values:
            readers = self.index.readers.get(value, [])
            still_read = any(
                value.name in node.input
                for reader in readers
                for node in self._replaced.get(reader.place, [reader.place.node])
            )
            if not still_read and value not in self.index.outputs:
                self._removed.add(value)

    def apply(self) -> None:
        """Carries the edits out; the index is stale afterwards."""
        self._proto.ir_version = max(self._proto.ir_version, _FIRST_IR_WITHOUT_INPUT_RULE)
        for scope in reversed(self.index.scopes):
            self._apply_to(scope)

    def _apply_to(self, scope: Scope) -> None:
        graph = scope.graph
        removed = {value.name for value in self._removed if value.scope is scope}
        replaced = {place.position: nodes for place, nodes in self._replaced.items() if place.scope is scope}
        if removed:
            _delete_named(graph.initializer, removed)
            _delete_named(graph.input, removed)
        graph.initializer.extend(self._added.get(scope, []))
        if removed or replaced or scope in self._heads:
            nodes = list(self._heads.get(scope, []))
            for position, node in enumerate(graph.node):
                gone = constant_value(node) is not None and node.output[0] in removed
                nodes.extend([] if gone else replaced.get(position, [node]))
            _rebuild(graph.node, nodes)


def opset_of(proto: ModelProto) -> int:
    """The version of the standard operators that the model is written in."""
    return max((opset.version for opset in proto.opset_import if opset.domain in STANDARD), default=1)


def raise_opset(proto: ModelProto, version: int) -> None:
    """Converts a model whose standard operators are older than ``version``; in place.

    Raises:
        UnsupportedTechnique: Where ONNX's own converter cannot.
    """
    found = opset_of(proto)
    if found >= version:
        return
    try:
        converted = version_converter.convert_version(proto, version)
    except (RuntimeError, ValueError, TypeError) as error:
        raise UnsupportedTechnique(
            f"This needs ONNX opset {version}; the model has {found} and ONNX's converter cannot raise it.",
            hint="Export the model again with a newer opset.",
        ) from error
    proto.CopyFrom(converted)


def import_domain(proto: ModelProto, domain: str, version: int) -> None:
    """Declares an operator domain, once."""
    if all(opset.domain != domain for opset in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(domain, version))


def _rebuild(field: Any, kept: list[Message]) -> None:
    """Gives a repeated field the messages in ``kept``; those of them that stood in it outlive the deletion."""
    del field[:]
    field.extend(kept)


def _delete_named(field: Any, names: set[str]) -> None:
    for position in reversed(range(len(field))):
        if field[position].name in names:
            del field[position]
