"""Which stored tensors learn: by the operators that read them and the slots they are read at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from onnx import TensorProto

from workers.compression.families.onnx.training.checking import operator_of
from workers.compression.families.onnx.training.operators.call import DTYPES
from workers.compression.families.onnx.walking import Index, Place, Reader, Value, integer_attribute, numel

WEIGHT_SLOTS: Mapping[str, frozenset[int]] = {
    "BatchNormalization": frozenset({1, 2}),
    "Conv": frozenset({1, 2}),
    "ConvTranspose": frozenset({1, 2}),
    "Einsum": frozenset({0, 1, 2, 3}),
    "GRU": frozenset({1, 2, 3}),
    "Gather": frozenset({0}),
    "Gemm": frozenset({0, 1, 2}),
    "GroupNormalization": frozenset({1, 2}),
    "InstanceNormalization": frozenset({1, 2}),
    "LSTM": frozenset({1, 2, 3}),
    "LayerNormalization": frozenset({1, 2}),
    "MatMul": frozenset({0, 1}),
    "PRelu": frozenset({1}),
    "RMSNormalization": frozenset({1}),
    "SimplifiedLayerNormalization": frozenset({1}),
    "com.microsoft.Attention": frozenset({1, 2}),
    "com.microsoft.BiasGelu": frozenset({1}),
    "com.microsoft.EmbedLayerNormalization": frozenset({2, 3, 4, 5, 6}),
    "com.microsoft.FastGelu": frozenset({1}),
    "com.microsoft.FusedConv": frozenset({1, 2}),
    "com.microsoft.FusedGemm": frozenset({0, 1, 2}),
    "com.microsoft.FusedMatMul": frozenset({0, 1}),
    "com.microsoft.MultiHeadAttention": frozenset({3}),
    "com.microsoft.SkipLayerNormalization": frozenset({2, 3, 4}),
    "com.microsoft.SkipSimplifiedLayerNormalization": frozenset({2, 3}),
    "com.microsoft.TransposeMatMul": frozenset({0, 1}),
}
ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Sum"})
"""Biases and scales that exporters wrote apart; a single number among them is a constant of the formula."""
PRODUCTS = frozenset({"MatMul", "Gemm", "com.microsoft.FusedMatMul"})

_REARRANGING = frozenset(
    {
        "Cast",
        "Concat",
        "Expand",
        "Flatten",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
_STATISTICS = frozenset({3, 4})
_LEARNED = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})


@dataclass(frozen=True, eq=False)
class Learned:
    """A stored tensor that training changes.

    Args:
        statistic: It is a running figure of a batch norm, no parameter.
        readers: Where nodes compute with it, re-arranging ones passed over, in order of execution.
    """

    value: Value
    tensor: TensorProto
    statistic: bool
    readers: tuple[Reader, ...]


def learned_tensors(index: Index, places: Sequence[Place]) -> list[Learned]:
    """Parameters and statistics of the nodes ``places``, by the first node that computes with them."""
    order = {place: position for position, place in enumerate(places)}
    found: list[Learned] = []
    for value, tensor in index.stored.items():
        if tensor.data_type not in _LEARNED or value.scope is not index.scopes[0]:
            continue
        readers = [reader for reader in _computing_readers(index, value) if reader.place in order]
        readers.sort(key=lambda reader: (order[reader.place], reader.slot))
        statistic = any(_is_statistic(reader) for reader in readers)
        if statistic or any(_is_weight(index, reader, tensor) for reader in readers):
            found.append(Learned(value, tensor, statistic, tuple(readers)))
    return sorted(found, key=lambda learned: (order[learned.readers[0].place], learned.readers[0].slot))


def _computing_readers(index: Index, value: Value) -> list[Reader]:
    waiting, seen, found = [value], {value}, []
    while waiting:
        for reader in index.readers.get(waiting.pop(), ()):
            if not _rearranges(reader):
                found.append(reader)
                continue
            outputs = {Value(reader.place.scope, name) for name in reader.place.node.output if name}
            waiting.extend(outputs - seen)
            seen |= outputs
    return found


def _rearranges(reader: Reader) -> bool:
    name = operator_of(reader.place.node)
    if name == "Cast":
        dtype = DTYPES.get(integer_attribute(reader.place.node, "to", 0))
        return dtype in {torch.float32, torch.float64}
    return name in _REARRANGING and (reader.slot == 0 or name == "Concat")


def _is_statistic(reader: Reader) -> bool:
    return reader.place.node.op_type == "BatchNormalization" and reader.slot in _STATISTICS


def _is_weight(index: Index, reader: Reader, tensor: TensorProto) -> bool:
    name = operator_of(reader.place.node)
    if name in ARITHMETIC:
        return numel(tensor) > 1 or (len(tensor.dims) > 0 and _adds_to_product(index, reader))
    return reader.slot in WEIGHT_SLOTS.get(name, ())


def _adds_to_product(index: Index, reader: Reader) -> bool:
    """Whether an ``Add`` gives a product its bias: with one output, that is a single number too."""
    if reader.place.node.op_type != "Add":
        return False
    other = index.read(reader.place, 1 - reader.slot)
    maker = index.makers.get(other) if other is not None else None
    return maker is not None and operator_of(maker.node) in PRODUCTS
