"""Shapes of values under given feeds: inferred, and where inference gives up, seen in a run."""

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, ValueInfoProto, helper

from workers.compression.families.model import Feeds
from workers.compression.families.onnx.observing import observe
from workers.compression.families.onnx.skeleton import skeleton
from workers.compression.families.onnx.walking import Index, subgraphs

Shape = tuple[int, ...]


def value_shapes(proto: ModelProto, index: Index, feeds: Feeds) -> dict[str, Shape]:
    """Shapes of all values of the main graph that are not stored."""
    main = index.scopes[0]
    known = inferred_shapes(proto, feeds)
    made = [name for place in index.places if place.scope is main for name in place.node.output if name]
    stored = {value.name for value in index.stored if value.scope is main}
    missing = [name for name in made if name not in known and name not in stored]
    if missing:
        seen = next(observe(proto, missing, [feeds]))
        known.update({name: np.shape(values) for name, values in seen.items() if isinstance(values, np.ndarray)})
    return known


def seen_shapes(proto: ModelProto, names: list[str], feeds: Feeds) -> list[ValueInfoProto]:
    """Values of the main graph as they are in a run."""
    return [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values.dtype), values.shape)
        for name, values in next(observe(proto, names, [feeds])).items()
    ]


def inferred_shapes(proto: ModelProto, feeds: Feeds, seen: Iterable[ValueInfoProto] = ()) -> dict[str, Shape]:
    """Static shapes by name, nested graphs included; values that inference cannot tell are left out.

    Args:
        seen: Values that are known.
    """
    light = skeleton(proto)
    for value in light.graph.input:
        if value.name in feeds:
            del value.type.tensor_type.shape.dim[:]
            for size in np.shape(feeds[value.name]):
                value.type.tensor_type.shape.dim.add().dim_value = size
    for output in light.graph.output:
        output.type.tensor_type.ClearField("shape")
    del light.graph.value_info[:]
    light.graph.value_info.extend(seen)
    inferred = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    shapes: dict[str, Shape] = {}
    for graph in _graphs(inferred):
        for value in (*graph.input, *graph.value_info, *graph.output):
            shape = _static(value)
            if shape is not None:
                shapes[value.name] = shape
    return shapes


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for nested in subgraphs(node):
            yield from _graphs(nested)


def _static(value: ValueInfoProto) -> Shape | None:
    kind = value.type.tensor_type
    if not kind.HasField("shape") or not all(dim.HasField("dim_value") for dim in kind.shape.dim):
        return None
    return tuple(dim.dim_value for dim in kind.shape.dim)
