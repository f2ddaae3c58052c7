"""Multiply-accumulates of a model for given feeds, from the shapes that inference finds for them."""

import math

from onnx import ModelProto

from workers.compression.families.model import Feeds
from workers.compression.families.onnx.folding import folds
from workers.compression.families.onnx.shapes import Shape, inferred_shapes, seen_shapes
from workers.compression.families.onnx.walking import Index, Place, Scope, integer_attribute

_MATRIX_WEIGHT = {
    "MatMul": 1,
    "FusedMatMul": 1,
    "MatMulInteger": 1,
    "DynamicQuantizeMatMul": 1,
    "MatMulIntegerToFloat": 1,
    "QLinearMatMul": 3,
    "Gemm": 1,
    "QGemm": 3,
    "MatMulNBits": 1,
}
_KERNEL = {"Conv": 1, "ConvInteger": 1, "FusedConv": 1, "QLinearConv": 3, "ConvTranspose": 1}
_RECURRENT = frozenset({"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"})
_ATTENTION = frozenset({"Attention", "QAttention", "MultiHeadAttention"})
_COUNTED = _MATRIX_WEIGHT.keys() | _KERNEL.keys() | _RECURRENT | _ATTENTION


def count_macs(proto: ModelProto, feeds: Feeds) -> int | None:
    """The sum over all nodes whose shapes are known; None where no node's are. Of branches, the costliest counts."""
    index = Index.of(proto)
    shapes = _Shapes(proto, index, feeds)
    totals: dict[Scope, int] = dict.fromkeys(index.scopes, 0)
    counted = False
    for place in index.places:
        count = _node_macs(place, index, shapes)
        if count is not None:
            totals[place.scope] += count
            counted = True
    return _with_branches(index, totals) if counted else None


def _with_branches(index: Index, totals: dict[Scope, int]) -> int:
    for scope in reversed(index.scopes):
        branches = [other for other in index.scopes if other.parent is scope]
        for holder in {id(branch.holder): branch.holder for branch in branches}.values():
            totals[scope] += max(totals[branch] for branch in branches if branch.holder is holder)
    return totals[index.scopes[0]]


class _Shapes:
    """Static shapes of values under the given feeds: inferred, and where inference gives up, seen in a run."""

    def __init__(self, proto: ModelProto, index: Index, feeds: Feeds) -> None:
        self._index = index
        self._stored = {value: tuple(tensor.dims) for value, tensor in index.stored.items()}
        self._known = inferred_shapes(proto, feeds)
        missing = self._missing()
        if missing:
            self._known = inferred_shapes(proto, feeds, seen_shapes(proto, missing, feeds))

    def of(self, place: Place, slot: int) -> Shape | None:
        """Shape of the input at ``slot``, or of the first output at slot -1."""
        value = self._index.made(place) if slot < 0 else self._index.read(place, slot)
        if value is None:
            return None
        return self._stored.get(value) or self._known.get(value.name)

    def _missing(self) -> list[str]:
        """Values of the main graph that nodes with multiplications, or branches, read or make."""
        main = self._index.scopes[0]
        names: dict[str, None] = {}
        for place in self._index.places:
            if place.scope is main and not (place.node.op_type in _COUNTED or folds(self._index, place)):
                continue
            read = [self._index.read(place, slot) for slot in range(len(place.node.input))]
            for value in (*read, self._index.made(place)):
                if value is not None and value.scope is main and value not in self._stored:
                    names[value.name] = None
        return [name for name in names if name not in self._known]


def _node_macs(place: Place, index: Index, shapes: _Shapes) -> int | None:
    node = place.node
    if folds(index, place):
        return None
    if node.op_type in _MATRIX_WEIGHT:
        return _matrix_macs(place, shapes)
    if node.op_type in _KERNEL:
        return _kernel_macs(place, shapes)
    if node.op_type in _RECURRENT:
        return _recurrent_macs(place, shapes)
    return _attention_macs(place, shapes) if node.op_type in _ATTENTION else None


def _kernel_macs(place: Place, shapes: _Shapes) -> int | None:
    kernel = shapes.of(place, _KERNEL[place.node.op_type])
    extent = shapes.of(place, 0 if place.node.op_type == "ConvTranspose" else -1)
    return math.prod(extent) * math.prod(kernel[1:]) if kernel and extent else None


def _recurrent_macs(place: Place, shapes: _Shapes) -> int | None:
    sequence, weight, recurrence = (shapes.of(place, slot) for slot in (0, 1, 2))
    if not (sequence and weight and recurrence):
        return None
    return sequence[0] * sequence[1] * (math.prod(weight) + math.prod(recurrence))


def _matrix_macs(place: Place, shapes: _Shapes) -> int | None:
    node = place.node
    left = shapes.of(place, 0)
    if node.op_type == "MatMulNBits":
        width = integer_attribute(node, "N", 0)
        return math.prod(left) * width if left else None
    right = shapes.of(place, _MATRIX_WEIGHT[node.op_type])
    if not left or not right:
        return None
    transposed = node.op_type in {"Gemm", "QGemm", "FusedMatMul"} and integer_attribute(node, "transB", 0)
    width = right[-2] if transposed else right[-1]
    batch = math.prod(right[:-2]) if len(right) > len(left) else 1
    return math.prod(left) * width * batch


def _attention_macs(place: Place, shapes: _Shapes) -> int | None:
    query, other = shapes.of(place, 0), shapes.of(place, 1)
    if not query or not other or len(query) != 3:
        return None
    if place.node.op_type == "MultiHeadAttention":
        return 2 * math.prod(query) * (other[1] if len(other) == 3 else query[1])
    hidden = other[-1] // 3
    return math.prod(query) * other[-1] + 2 * query[0] * query[1] * query[1] * hidden
