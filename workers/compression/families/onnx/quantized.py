"""Recognizes integer weights by how the graph uses them, ours and other tools', and restores their real values."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto

from workers.compression.coding.packing import unpack
from workers.compression.families.model import Array
from workers.compression.families.onnx.expansions import Expansion, expansions
from workers.compression.families.onnx.walking import Index, Reader, Value, array, integer_attribute, numel

Floats = npt.NDArray[np.float32]

INTEGERS = frozenset(
    {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4, TensorProto.INT16, TensorProto.UINT16}
)
_BIAS_INTEGERS = frozenset({TensorProto.INT32})
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
_FLOAT8 = frozenset({TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2})
_HALVES = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})


@dataclass(frozen=True)
class Restoration:
    """How a stored integer tensor becomes real numbers: ``(q - zero) * scale``.

    ``overhead`` are the stored tensors that only serve this. ``restore`` gives None where the layout is not decoded.
    """

    overhead: tuple[Value, ...]
    restore: Callable[[Array], Floats | None]


@dataclass(frozen=True)
class _Slots:
    """Where an operator reads weight, scale and zero point, and the axis that the scale runs along."""

    weight: int
    scale: int | None
    zero: int
    axis: int = -1


_OPERATORS: dict[str, tuple[_Slots, ...]] = {
    "DequantizeLinear": (_Slots(0, 1, 2),),
    "MatMulInteger": (_Slots(1, None, 3),),
    "ConvInteger": (_Slots(1, None, 3, 0),),
    "QLinearMatMul": (_Slots(3, 4, 5),),
    "QLinearConv": (_Slots(3, 4, 5, 0),),
    "QGemm": (_Slots(3, 4, 5),),
    "DynamicQuantizeMatMul": (_Slots(1, 2, 3),),
    "MatMulIntegerToFloat": (_Slots(1, 3, 5),),
    "QAttention": (_Slots(1, 4, 7),),
    "DynamicQuantizeLSTM": (_Slots(1, 8, 9), _Slots(2, 10, 11)),
    "MatMulNBits": (_Slots(1, 2, 3),),
    "GatherBlockQuantized": (_Slots(0, 2, 3),),
}
_OPAQUE = frozenset({"MatMulNBits", "GatherBlockQuantized"})
"""What ``_by_operator`` does not decode."""


def restorations(index: Index) -> dict[Value, Restoration]:
    """All quantized weights of a model; of one that is stored in several tensors the largest stands for it."""
    found = _by_expansion(index)
    parts = {part for restoration in found.values() for part in restoration.overhead}
    for value in index.stored:
        restoration = None if value in found or value in parts else _restoration_of(index, value)
        if restoration is not None:
            found[value] = restoration
    return found


def _by_expansion(index: Index) -> dict[Value, Restoration]:
    """What operators restore that are folded, or that look up and restore rows."""
    found: dict[Value, Restoration] = {}
    known: set[Value] = set()
    # Tables first: what a tied layer computes with is made of their rows, not the other way round.
    for expansion in sorted(expansions(index), key=lambda expansion: expansion.positions is None):
        packed = _packed(index, expansion)
        gives_floats = any(index.stored[leaf].data_type in FLOATS | _FLOAT8 for leaf in expansion.leaves)
        if packed and gives_floats and known.isdisjoint(packed):
            known.update(packed)
            largest = max(packed, key=lambda leaf: numel(index.stored[leaf]))
            overhead = tuple(leaf for leaf in expansion.leaves if leaf != largest)
            found[largest] = Restoration(overhead, expansion.restored)
    return found


def _packed(index: Index, expansion: Expansion) -> list[Value]:
    """The tensors that hold a weight's numbers: integers or 8-bit floats, else halves if these are scaled."""
    for types in (INTEGERS | _FLOAT8, _HALVES if expansion.multiplies else frozenset()):
        found = [leaf for leaf in expansion.leaves if index.stored[leaf].data_type in types]
        if found:
            return found
    return []


def _restoration_of(index: Index, value: Value) -> Restoration | None:
    tensor = index.stored[value]
    if tensor.data_type not in INTEGERS | _BIAS_INTEGERS:
        return None
    for reader in index.readers.get(value, ()):
        if reader.place.node.op_type == "MatMulNBits" and reader.slot == 1:
            return _by_packed_product(index, reader)
        found = _by_operator(index, reader) if tensor.data_type in INTEGERS or _dequantizes(reader) else None
        if found is None and tensor.data_type in INTEGERS:
            found = _by_lookup(index, reader)
        if found is not None:
            return found
    return None


def _dequantizes(reader: Reader) -> bool:
    return reader.place.node.op_type == "DequantizeLinear"


def _by_operator(index: Index, reader: Reader) -> Restoration | None:
    node = reader.place.node
    for slots in _OPERATORS.get(node.op_type, ()):
        if slots.weight != reader.slot:
            continue
        scale = _integer_product_scale(index, reader) if slots.scale is None else index.read(reader.place, slots.scale)
        zero = index.read(reader.place, slots.zero)
        overhead = tuple(found for found in (scale, zero) if found is not None and found in index.stored)
        if scale is None or scale not in index.stored or node.op_type in _OPAQUE:
            return Restoration(overhead, lambda _: None)
        axis = integer_attribute(node, "axis", 1) if node.op_type == "DequantizeLinear" else slots.axis
        return _affine(index, overhead, (scale, zero), axis, node)
    return None


def _by_packed_product(index: Index, reader: Reader) -> Restoration:
    """Groups of packed integers; scales may be halves that are cast."""
    node = reader.place.node
    factors, zeros = (_stored_behind(index, index.read(reader.place, slot)) for slot in (2, 3))
    overhead = tuple(found for found in (factors, zeros) if found is not None)
    if factors is None or len(overhead) < sum(bool(name) for name in node.input[2:4]):
        return Restoration(overhead, lambda _: None)
    inputs, outputs, bits, group = (integer_attribute(node, name, 4) for name in ("K", "N", "bits", "block_size"))
    scale = array(index.stored[factors]).astype(np.float32)
    zero = None if zeros is None else array(index.stored[zeros])

    def restore(values: Array) -> Floats | None:
        groups = -(-inputs // group)
        if 8 % bits or values.dtype != np.uint8 or not (zero is None or zero.dtype == np.uint8):
            return None
        codes = unpack(values.reshape(-1).astype(np.uint8), bits, outputs * groups * group)
        centred = codes.reshape(outputs, groups, group).astype(np.float32) - _zero_points(zero, bits, outputs, groups)
        matrix = (centred * scale.reshape(outputs, groups, 1)).reshape(outputs, -1)[:, :inputs]
        return np.ascontiguousarray(matrix.T)

    return Restoration(overhead, restore)


def _zero_points(packed: Array | None, bits: int, outputs: int, groups: int) -> Floats:
    if packed is None:
        return np.full((1, 1, 1), 1 << (bits - 1), np.float32)
    per_row = packed.size // outputs * (8 // bits)
    points = unpack(packed.reshape(-1).astype(np.uint8), bits, outputs * per_row).reshape(outputs, per_row, 1)
    return points[:, :groups].astype(np.float32)


def _stored_behind(index: Index, value: Value | None) -> Value | None:
    """A stored tensor, or the one that a ``Cast`` reads."""
    maker = index.makers.get(value) if value is not None else None
    if maker is not None and maker.node.op_type == "Cast":
        value = index.read(maker, 0)
    return value if value is not None and value in index.stored else None


def _affine(
    index: Index, overhead: tuple[Value, ...], parameters: tuple[Value, Value | None], axis: int, node: NodeProto
) -> Restoration:
    scale = array(index.stored[parameters[0]]).astype(np.float32)
    stored_zero = index.stored.get(parameters[1]) if parameters[1] is not None else None
    zero = array(stored_zero).astype(np.float32) if stored_zero is not None else np.zeros((), np.float32)
    recurrent = node.op_type == "DynamicQuantizeLSTM"
    blocks = integer_attribute(node, "block_size", 0)

    def restore(values: Array) -> Floats | None:
        if blocks:
            return None
        shape = _broadcast_shape(values, scale, axis, recurrent=recurrent)
        centred = values.astype(np.float32) - (zero.reshape(shape) if zero.size > 1 else zero.reshape(()))
        restored: Floats = centred * scale.reshape(shape)
        return restored.swapaxes(1, 2) if recurrent else restored

    return Restoration(overhead, restore)


def _broadcast_shape(values: Array, scale: Floats, axis: int, *, recurrent: bool) -> tuple[int, ...]:
    if scale.size == 1:
        return ()
    if recurrent:
        return (values.shape[0], 1, scale.size // values.shape[0])
    shape = [1] * values.ndim
    shape[axis] = scale.size
    return tuple(shape)


def _integer_product_scale(index: Index, reader: Reader) -> Value | None:
    """The weight scale behind ``MatMulInteger -> Cast -> Mul(., activation scale * weight scale)``."""
    for cast in index.readers.get(index.made(reader.place), ()):
        if cast.place.node.op_type != "Cast":
            continue
        for product in index.readers.get(index.made(cast.place), ()):
            other = index.read(product.place, 1 - product.slot) if product.place.node.op_type == "Mul" else None
            maker = index.makers.get(other) if other is not None else None
            if maker is None or maker.node.op_type != "Mul":
                continue
            factors = (_before_cast(index, index.read(maker, slot)) for slot in (0, 1))
            return next((found for found in factors if found is not None and found in index.stored), None)
    return None


def _before_cast(index: Index, value: Value | None) -> Value | None:
    """What a cast made ``value`` of, else the value itself: scales may be stored in half precision."""
    maker = index.makers.get(value) if value is not None and value not in index.stored else None
    return index.read(maker, 0) if maker is not None and maker.node.op_type == "Cast" else value


def _by_lookup(index: Index, reader: Reader) -> Restoration | None:
    """``Gather`` of integer rows, then ``DequantizeLinear`` or ``Cast -> Mul`` with the rows' own scales."""
    if reader.place.node.op_type != "Gather" or reader.slot != 0:
        return None
    for step in index.readers.get(index.made(reader.place), ()):
        if step.place.node.op_type == "DequantizeLinear":
            rows = Reader(step.place, 0)
            return _by_operator(index, rows)
        if step.place.node.op_type == "Cast":
            scale = _row_scale(index, index.made(step.place))
            return None if scale is None else _scaled(index, scale)
    return None


def _scaled(index: Index, scale: Value) -> Restoration:
    factor = array(index.stored[scale]).astype(np.float32)
    return Restoration((scale,), lambda values: values.astype(np.float32) * factor)


def _row_scale(index: Index, value: Value) -> Value | None:
    for product in index.readers.get(value, ()):
        if product.place.node.op_type != "Mul":
            continue
        other = index.read(product.place, 1 - product.slot)
        maker = index.makers.get(other) if other is not None else None
        table = index.read(maker, 0) if maker is not None and maker.node.op_type == "Gather" else None
        if table is not None and table in index.stored:
            return table
    return None
