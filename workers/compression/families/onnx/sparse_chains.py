"""Checks weights that expand from steps and values before onnxruntime scatters them.

What ``sparse_forms`` writes makes up to three thousand bytes out of a stored one, far more than anything else may. So
it is known for what it is, and its steps are added up here: each of its positions lies inside the weight and behind
the one before, and no stretch of zeros is longer than a step, so that what is stored bounds what it becomes.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from workers.compression.coding.packing import Codes
from workers.compression.families.onnx.folding import folds
from workers.compression.families.onnx.unpacking import MAX_INTERMEDIATE_BYTES
from workers.compression.families.onnx.walking import Index, Place, Value, array, integer_attribute, layer_name, numel
from workers.compression.specs.errors import InvalidModel, TooLarge

LONGEST_STEP = 255
BYTES_PER_VALUE = 12
"""Zeros, the same with the values scattered among them, and those in the weight's shape: four bytes each."""

_MOST_PLANES = 3
_CODES_PER_BYTE = 8
_MOST_SHIFTED = 7

Steps = npt.NDArray[np.int64]


class _UnlikeOursError(Exception):
    """The nodes are not those that ``sparse_forms`` writes."""


def scattered_bytes(index: Index) -> int:
    """Bytes that a model's sparse weights make at load.

    Raises:
        InvalidModel: Positions that are summed up from stored numbers, but not as ``sparse_forms`` does, or that lie
            outside the weight or do not rise.
        TooLarge: More zeros in a row than a step may skip, or more values than are to be folded at once.
    """
    return sum(_size_of(index, place) * BYTES_PER_VALUE for place in _scatters(index))


def _scatters(index: Index) -> Iterator[Place]:
    """Nodes that scatter at positions which are summed up from stored numbers."""
    for place in index.places:
        if place.node.op_type == "ScatterElements" and folds(index, place):
            maker = _maker(index, index.read(place, 1))
            if maker is not None and maker.node.op_type == "CumSum":
                yield place


def _size_of(index: Index, place: Place) -> int:
    """How many values a sparse weight has, zeros counted."""
    name = layer_name(place.node)[:200]
    try:
        size = _zeros(index, place)
        steps = _steps(index, _required(index.read(place, 1)))
    except _UnlikeOursError as error:
        raise InvalidModel(
            f"{name} scatters stored values at summed-up positions in a way that is not accepted.",
            reason="onnx_sparse_weight_refused",
            hint="Store the weight densely.",
        ) from error
    if not 0 < size * np.dtype(np.float32).itemsize <= MAX_INTERMEDIATE_BYTES:
        raise TooLarge(f"The sparse weight {name} restores {size} values at once.", reason="onnx_value_too_large")
    last = int(steps.sum())
    if last >= size or (steps[1:] < 1).any():
        raise InvalidModel(
            f"The positions of the sparse weight {name} do not rise within 0 to {size - 1}.", reason="onnx_invalid"
        )
    if max(int(steps.max()), size - 1 - last) > LONGEST_STEP:
        raise TooLarge(
            f"The sparse weight {name} skips more than {LONGEST_STEP} values at once.",
            reason="onnx_expansion_too_large",
        )
    return size


def _zeros(index: Index, place: Place) -> int:
    """Length of the row of zeros that values are scattered into."""
    node = place.node
    zeros = _made_by(index, index.read(place, 0), "Expand")
    repeated, shape = index.tensor(zeros, 0), index.tensor(zeros, 1)
    plain = all(attribute.name == "axis" and attribute.i == 0 for attribute in node.attribute)
    if not plain or repeated is None or numel(repeated) != 1 or shape is None or list(shape.dims) != [1]:
        raise _UnlikeOursError
    return int(array(shape)[0])


def _steps(index: Index, positions: Value) -> Steps:
    """What is summed up; not negative, for it is made of unsigned bytes."""
    total = _made_by(index, positions, "CumSum")
    if total.node.attribute or not np.array_equal(_small(index, total, 1), [0]):
        raise _UnlikeOursError
    value, planes = index.read(total, 0), list[tuple[Value, int]]()
    factor = 1
    while (place := _maker(index, value)) is not None and place.node.op_type == "Add":
        planes.append((_required(index.read(place, 1)), factor))
        raised = _made_by(index, index.read(place, 0), "Mul")
        factor *= int(_small(index, raised, 1)[0])
        value = index.read(raised, 0)
        if len(planes) == _MOST_PLANES or not 0 < factor <= LONGEST_STEP:
            raise _UnlikeOursError
    planes.append((_required(value), factor))
    found = [_plane(index, plane) * factor for plane, factor in planes]
    if len({len(plane) for plane in found}) != 1 or not len(found[0]):
        raise _UnlikeOursError
    return np.asarray(np.sum(found, axis=0, dtype=np.int64), np.int64)


def _plane(index: Index, value: Value) -> Steps:
    """Packed codes, unpacked."""
    cast = _made_by(index, value, "Cast")
    if integer_attribute(cast.node, "to", 0) != TensorProto.INT32:
        raise _UnlikeOursError
    source, end = index.read(cast, 0), None
    while (place := _maker(index, source)) is not None and place.node.op_type in {"Reshape", "Slice"}:
        if place.node.op_type == "Slice":
            if end is not None or len(place.node.input) != 3 or _small(index, place, 1)[0] != 0:
                raise _UnlikeOursError
            end = int(_small(index, place, 2)[0])
        elif (shape := index.tensor(place, 1)) is None or list(shape.dims) != [1]:
            raise _UnlikeOursError
        source = index.read(place, 0)
    stored = index.stored.get(_required(source))
    codes = _shifted(index, _required(source)) if stored is None else _bytes(stored, columns=None)
    return codes.reshape(-1)[:end].astype(np.int64)


def _shifted(index: Index, value: Value) -> Codes:
    """Bytes shifted left by several distances and right by one."""
    right = _made_by(index, value, "BitShift")
    left = _made_by(index, index.read(right, 0), "BitShift")
    directions = [[attribute.s for attribute in place.node.attribute] for place in (left, right)]
    stored = index.tensor(left, 0)
    distances = _small(index, left, 1), _small(index, right, 1)[:1]
    if (
        directions != [[b"LEFT"], [b"RIGHT"]]
        or stored is None
        or any(((found < 0) | (found > _MOST_SHIFTED)).any() for found in distances)
    ):
        raise _UnlikeOursError
    lefts, right_by = (found.astype(np.uint8) for found in distances)
    return np.asarray((_bytes(stored, columns=1) << lefts) >> right_by, np.uint8)


def _bytes(stored: TensorProto, columns: int | None) -> Codes:
    """A stored row of bytes, or column if it has to have columns."""
    if stored.data_type != TensorProto.UINT8 or list(stored.dims[1:]) != ([] if columns is None else [columns]):
        raise _UnlikeOursError
    return array(stored).astype(np.uint8, copy=False)


def _small(index: Index, place: Place, slot: int) -> Steps:
    """At most eight stored integers, flat."""
    tensor = index.tensor(place, slot)
    if tensor is None or not 0 < numel(tensor) <= _CODES_PER_BYTE or array(tensor).dtype.kind not in "iu":
        raise _UnlikeOursError
    return array(tensor).reshape(-1).astype(np.int64)


def _maker(index: Index, value: Value | None) -> Place | None:
    return None if value is None else index.makers.get(value)


def _made_by(index: Index, value: Value | None, operator: str) -> Place:
    place = _maker(index, value)
    if place is None or place.node.op_type != operator:
        raise _UnlikeOursError
    return place


def _required(value: Value | None) -> Value:
    if value is None:
        raise _UnlikeOursError
    return value
