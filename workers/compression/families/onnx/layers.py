"""Layers as they are stored: each stored tensor counted once, with the first node that computes with it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper

from workers.compression.families.model import StoredLayer
from workers.compression.families.onnx.expansions import expansions
from workers.compression.families.onnx.folding import folds
from workers.compression.families.onnx.quantized import FLOATS, Restoration, restorations
from workers.compression.families.onnx.walking import (
    Index,
    Place,
    Value,
    array,
    integer_attribute,
    layer_name,
    numel,
)

_ROUNDING = frozenset({"QuantizeLinear", "DynamicQuantizeLinear"})


@dataclass
class _Parts:
    """What one computing node owns."""

    weights: list[tuple[TensorProto, Restoration | None]] = field(default_factory=list)
    extra_bytes: int = 0


def stored_layers(proto: ModelProto) -> Iterator[StoredLayer]:
    """Layers in order of execution; weights are restored for one layer at a time."""
    index = Index.of(proto)
    owned: dict[Place, _Parts] = {}
    restored = restorations(index)
    arranged = _arranged(index)
    counted: set[Value] = set()
    overhead = {value for found in restored.values() for value in found.overhead}
    for value, tensor in index.stored.items():
        owner = computing_reader(index, value)
        if owner is None or value in overhead or not (value in restored or _is_parameter(tensor)):
            continue
        if _prepares_rounding(index, owner):
            continue
        parts = owned.setdefault(owner, _Parts())
        restoration = restored.get(value)
        as_it_is = any(index.read(owner, slot) == value for slot in range(len(owner.node.input)))
        parts.weights.append((tensor, restoration or (None if as_it_is else arranged.get(value))))
        if restoration is not None:
            own = set(restoration.overhead) - counted
            counted |= own
            parts.extra_bytes += sum(stored_bytes(index.stored[found]) for found in own)
    for place in index.places:
        if place in owned:
            yield _layer(place.node, owned[place])


def computing_reader(index: Index, value: Value) -> Place | None:
    """The first node that reads ``value`` and is not itself computed from constants only."""
    waiting, seen = [value], {value}
    while waiting:
        current = waiting.pop(0)
        for reader in index.readers.get(current, ()):
            place = reader.place
            if not folds(index, place):
                return place
            made = index.made(place)
            if made not in seen:
                seen.add(made)
                waiting.append(made)
    return None


def _arranged(index: Index) -> dict[Value, Restoration]:
    """Float weights as their nodes read them, where these read them arranged: restored weights are compared so too."""
    single = (expansion for expansion in expansions(index) if len(expansion.leaves) == 1)
    return {
        expansion.leaves[0]: Restoration((), expansion.restored)
        for expansion in single
        if len(index.stored[expansion.leaves[0]].dims) > 1 and index.stored[expansion.leaves[0]].data_type in FLOATS
    }


def stored_bytes(tensor: TensorProto) -> int:
    """Bytes of the tensor's data in the file."""
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    return numel(tensor) * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _prepares_rounding(index: Index, place: Place) -> bool:
    """Whether a node only scales a value that is then quantized: its factors are overhead, as scales are."""
    readers = index.readers.get(index.made(place), [])
    return place.node.op_type == "Mul" and bool(readers) and all(r.place.node.op_type in _ROUNDING for r in readers)


def _is_parameter(tensor: TensorProto) -> bool:
    return tensor.data_type in FLOATS and len(tensor.dims) > 0


def _layer(node: NodeProto, parts: _Parts) -> StoredLayer:
    parameters = nonzero = 0
    size = parts.extra_bytes
    largest: npt.NDArray[np.float32] | None = None
    for tensor, restoration in parts.weights:
        values = array(tensor)
        restored = values.astype(np.float32) if restoration is None else restoration.restore(values)
        counted = values if restored is None or tensor.data_type in FLOATS else restored
        parameters += counted.size
        nonzero += int(np.count_nonzero(counted))
        size += stored_bytes(tensor)
        if restored is not None and (largest is None or restored.size > largest.size):
            largest = restored
    if largest is not None and largest.ndim == 2 and integer_attribute(node, "transB", 0):
        largest = largest.T  # integer products have no transposed form: compared layers all have columns last
    return StoredLayer(
        name=layer_name(node),
        op=node.op_type,
        parameters=parameters,
        nonzero=nonzero,
        bytes=size,
        bits=8.0 * size / max(parameters, 1),
        weights=largest,
    )
