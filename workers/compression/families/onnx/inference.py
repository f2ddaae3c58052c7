"""Shape inference that does not itself grow with what a model would make at load.

With data propagation ONNX computes the numbers that shapes are made of, but also those of a ``Range`` over a thousand
million of them: minutes and gigabytes. So shapes are inferred without it first, and with it only where no stored
numbers are made into longer rows of numbers than a shape can have any use for.
"""

import math
from collections.abc import Mapping

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TypeProto, helper

from workers.compression.families.model import Array
from workers.compression.families.onnx.small_values import computed, growth, small
from workers.compression.families.onnx.walking import STANDARD, subgraphs

GROWING = frozenset(
    {"CenterCropPad", "ConstantOfShape", "EyeLike", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile", "Upsample"}
)
"""Their results may be of any size, whatever goes in."""

_REPEATING = GROWING | {"Concat", "Gather"}
_MOST_PROPAGATED = 1 << 20


def infer_shapes(model: ModelProto, constant: frozenset[str]) -> ModelProto:
    """``model`` with the shapes of its values; raises what ``onnx.shape_inference`` raises.

    Args:
        constant: Values of the main graph that are stored, besides its initializers.
    """
    plain: ModelProto = onnx.shape_inference.infer_shapes(model)
    opset = max((found.version for found in model.opset_import if found.domain in STANDARD), default=1)
    if _explodes(plain.graph, constant, {}, opset):
        return plain
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def value_types(graph: GraphProto) -> dict[str, TypeProto.Tensor]:
    """Types of a graph's values, as far as they are known."""
    values = (*graph.input, *graph.value_info, *graph.output)
    found = {value.name: value.type.tensor_type for value in values if value.type.HasField("tensor_type")}
    for tensor in graph.initializer:
        found[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims).tensor_type
    return found


def element_count(known: TypeProto.Tensor | None) -> int | None:
    """Number of elements; None where it cannot be told."""
    if known is None or not known.HasField("shape"):
        return None
    dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in known.shape.dim]
    return None if any(dim < 0 for dim in dims) else math.prod(dims)


def stored_names(graph: GraphProto) -> set[str]:
    """Names of a graph's own stored tensors."""
    return {tensor.name for tensor in graph.initializer} | {sparse.values.name for sparse in graph.sparse_initializer}


def is_folded(node: NodeProto, constant: set[str]) -> bool:
    """Whether a node may be computed when the model is loaded, if ``constant`` are known then."""
    return not any(subgraphs(node)) and all(name in constant for name in node.input if name)


def _explodes(graph: GraphProto, outer: frozenset[str], numbers: Mapping[str, Array], opset: int) -> bool:
    """Whether rows of numbers that are computed from stored ones alone are long, or nobody knows how long."""
    types = value_types(graph)
    constant = set(outer) | stored_names(graph)
    known = {**numbers, **{tensor.name: few for tensor in graph.initializer if (few := small(tensor)) is not None}}
    for node in graph.node:
        if any(_explodes(nested, frozenset(constant), known, opset) for nested in subgraphs(node)):
            return True
        if not is_folded(node, constant):
            continue
        constant.update(filter(None, node.output))
        kind = types.get(node.output[0])
        count = element_count(kind)
        if count is None and node.op_type in _REPEATING and node.domain in STANDARD:
            count = growth(node, known)
        if count is None and node.op_type in _REPEATING:
            return True
        if count is not None and count > _MOST_PROPAGATED and (kind is None or len(kind.shape.dim) <= 1):
            return True
        if node.domain in STANDARD and (values := computed(node, known, opset)) is not None:
            known.update(zip(node.output, values, strict=False))
    return False
