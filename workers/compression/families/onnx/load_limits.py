"""Bounds how far a model grows while it is loaded, before a session is built.

onnxruntime computes everything that depends on stored tensors alone when it loads a model: our own artifacts restore
packed weights so, and a few stored bytes can be made into gigabytes the same way. Counted is every value that it may
fold, by its inferred shape. What restores packed weights makes at most so many bytes out of each stored one, sparse
weights as many as ``sparse_chains`` finds; anything beyond that is no weight, and small next to one where it is
honest: masks, tables of positions, shapes.
"""

import math
from collections.abc import Iterator, Mapping

from onnx import GraphProto, ModelProto, NodeProto, TypeProto, helper

from workers.compression.families.onnx.inference import GROWING, element_count, is_folded, stored_names, value_types
from workers.compression.families.onnx.sparse_chains import scattered_bytes
from workers.compression.families.onnx.walking import Index, layer_name, subgraphs
from workers.compression.specs.errors import TooLarge

MAX_BYTES_PER_STORED = 160
"""A byte of eight codes passes through values of one byte each three times, and of four bytes each four times."""
MAX_OTHER_BYTES = 1 << 30
MAX_FOLDED_BYTES = 12 << 30

_LARGEST_ELEMENT = 16


def check_expansion(proto: ModelProto, inferred: ModelProto) -> None:
    """Raises ``TooLarge`` where loading the model would make far more bytes than it stores.

    Args:
        inferred: The same model with shapes, as ``gate.check`` infers them.
    """
    sparse = scattered_bytes(Index.of(proto))
    total = sum(_folded_bytes(proto.graph, inferred.graph, frozenset()))
    limit = min(MAX_FOLDED_BYTES, MAX_OTHER_BYTES + MAX_BYTES_PER_STORED * proto.ByteSize() + sparse)
    if total > limit:
        raise TooLarge(
            f"While it is loaded, the model would expand to {total >> 20} MiB; {limit >> 20} MiB are the limit for "
            "a file of its size.",
            reason="onnx_expansion_too_large",
        )


def _folded_bytes(graph: GraphProto, inferred: GraphProto, outer: frozenset[str]) -> Iterator[int]:
    """Sizes of the values of a graph and those inside it that are computed from stored tensors alone."""
    types = value_types(inferred)
    twins = {node.output[0]: node for node in inferred.node if node.output}
    constant = set(outer - {value.name for value in graph.input})
    constant.update(stored_names(graph))
    for node in graph.node:
        if is_folded(node, constant):
            constant.update(filter(None, node.output))
            if node.op_type != "Constant":
                yield from (_size(node, name, types) for name in node.output if name)
        twin = twins.get(node.output[0]) if node.output else None
        if twin is not None:
            for own, other in zip(subgraphs(node), subgraphs(twin), strict=True):
                yield from _folded_bytes(own, other, frozenset(constant))


def _size(node: NodeProto, name: str, types: Mapping[str, TypeProto.Tensor]) -> int:
    """Bytes of a folded value; of one whose shape cannot be inferred, the most that its operator can make."""
    known = types.get(name)
    count = element_count(known)
    if count is not None and known is not None and known.elem_type:
        return count * int(helper.tensor_dtype_to_np_dtype(known.elem_type).itemsize)
    inputs = [element_count(types.get(read)) for read in node.input if read]
    if node.op_type in GROWING or None in inputs:
        raise TooLarge(
            f"Nothing bounds the size of what {node.op_type} ({layer_name(node)[:200]}) makes of stored tensors.",
            reason="onnx_expansion_too_large",
            hint="Simplify the model first, so that its constants are stored.",
        )
    return _LARGEST_ELEMENT * math.prod(max(found, 1) for found in inputs if found is not None)
