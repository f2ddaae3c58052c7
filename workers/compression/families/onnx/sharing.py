"""One stored tensor for all nodes of a graph that read the same values."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from onnx import ModelProto, TensorProto, numpy_helper

from workers.compression.families.model import Array
from workers.compression.families.onnx.walking import Index, Scope, Value, array

Tensors = Mapping[str, Callable[[], Array]]
Shared = tuple[Mapping[str, str], Iterator[tuple[str, Array]]]
"""Names of tensors, each mapped to the one that stands for it; and new values of some that stay."""


def store_once(proto: ModelProto, find: Callable[[Tensors], Shared]) -> int:
    """Lets readers of a tensor read another one that stands for it, and drops it; in place.

    Args:
        find: Is asked for each graph by itself.

    Returns:
        How many were dropped. Tensors inside ``Constant`` nodes and those that are outputs themselves stay.
    """
    index = Index.of(proto)
    dropped = 0
    for scope in index.scopes:
        stored = {tensor.name: tensor for tensor in _free(index, scope)}
        shared, changed = find({name: partial(array, tensor) for name, tensor in stored.items()})
        for name, values in changed:
            stored[name].CopyFrom(numpy_helper.from_array(values, name))
        for name, kept in shared.items():
            for reader in index.readers.get(Value(scope, name), ()):
                reader.place.node.input[reader.slot] = kept
        for graph_field in (scope.graph.initializer, scope.graph.input):
            for position in reversed(range(len(graph_field))):
                if graph_field[position].name in shared:
                    del graph_field[position]
        dropped += len(shared)
    return dropped


def _free(index: Index, scope: Scope) -> Iterator[TensorProto]:
    return (tensor for tensor in scope.graph.initializer if Value(scope, tensor.name) not in index.outputs)
