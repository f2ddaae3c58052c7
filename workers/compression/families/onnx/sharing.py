"""One stored tensor for all nodes of a graph that read the same values."""

from collections.abc import Callable, Iterable

from onnx import ModelProto

from workers.compression.families.model import Array
from workers.compression.families.onnx.walking import Index, Value, array

SameAs = Callable[[Iterable[tuple[str, Array]]], dict[str, str]]


def repeat_stored(proto: ModelProto, same_as: SameAs) -> int:
    """Lets readers of repeated tensors read the first one and drops the others, in place.

    Args:
        same_as: Maps names of tensors that repeat another to that one's name.

    Returns:
        How many were dropped. Tensors inside ``Constant`` nodes and those that are outputs themselves stay.
    """
    index = Index.of(proto)
    dropped = 0
    for scope in index.scopes:
        own = {tensor.name: Value(scope, tensor.name) for tensor in scope.graph.initializer}
        free = {name: value for name, value in own.items() if value not in index.outputs}
        repeated = same_as((name, array(index.stored[value])) for name, value in free.items())
        for name, original in repeated.items():
            for reader in index.readers.get(own[name], ()):
                reader.place.node.input[reader.slot] = original
        for graph_field in (scope.graph.initializer, scope.graph.input):
            for position in reversed(range(len(graph_field))):
                if graph_field[position].name in repeated:
                    del graph_field[position]
        dropped += len(repeated)
    return dropped
