"""The few stored numbers that shapes are made of, followed through a graph."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from workers.compression.families.model import Array

MOST_ELEMENTS = 1024

_FAILURES = (ValueError, TypeError, IndexError, KeyError, RuntimeError, NotImplementedError, ArithmeticError)
_ARITHMETIC = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "Cast",
        "Ceil",
        "Concat",
        "Constant",
        "Div",
        "Equal",
        "Floor",
        "Gather",
        "Identity",
        "Less",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Reshape",
        "ScatterElements",
        "ScatterND",
        "Shape",
        "Size",
        "Slice",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Transpose",
        "Unsqueeze",
        "Where",
    ]
)
"""None makes more elements than its inputs have, multiplied with each other."""


def small(tensor: TensorProto) -> Array | None:
    """A stored tensor's elements if they are few."""
    return numpy_helper.to_array(tensor) if math.prod(tensor.dims) <= MOST_ELEMENTS else None


def computed(node: NodeProto, known: Mapping[str, Array], opset: int) -> Sequence[Array] | None:
    """What a node makes of known numbers; None where one is not known, or it would make many."""
    if any(name and name not in known for name in node.input):
        return None
    inputs = [known[name] for name in node.input if name]
    count = growth(node, known)
    most = MOST_ELEMENTS if node.op_type in _GROWTH else MOST_ELEMENTS**2
    if count is None or count > most or (node.op_type == "Concat" and len(inputs) > MOST_ELEMENTS):
        return None
    try:
        evaluator = ReferenceEvaluator(_alone(node, opset))
        made = evaluator.run(None, {name: known[name] for name in node.input if name})
    except _FAILURES:
        return None
    results = [np.asarray(value) for value in made]
    return results if all(value.size <= MOST_ELEMENTS for value in results) else None


def growth(node: NodeProto, known: Mapping[str, Array]) -> int | None:
    """Most elements that a node makes of known numbers; None where it cannot be told."""
    sizes = [known[name].size if name in known else None for name in node.input]
    if node.op_type in _ARITHMETIC:
        return None if None in sizes else math.prod(max(size, 1) for size in sizes if size is not None)
    rule = _GROWTH.get(node.op_type)
    if rule is None or any(name not in known for name in node.input if name):
        return None
    try:
        return int(rule([known[name] for name in node.input if name]))
    except _FAILURES:
        return None


def _product(values: Array) -> int:
    return math.prod(max(int(value), 1) for value in np.asarray(values).reshape(-1))


def _range(inputs: list[Array]) -> float:
    start, limit, delta = (float(np.asarray(value).reshape(-1)[0]) for value in inputs)
    return max((limit - start) / delta, 0.0) + 1.0


_GROWTH: dict[str, Callable[[list[Array]], float]] = {
    "ConstantOfShape": lambda inputs: _product(inputs[0]),
    "Expand": lambda inputs: _product(np.array(np.broadcast_shapes(inputs[0].shape, tuple(inputs[1].tolist())))),
    "Tile": lambda inputs: inputs[0].size * _product(inputs[1]),
    "Range": _range,
}


def _alone(node: NodeProto, opset: int) -> onnx.ModelProto:
    inputs = [onnx.helper.make_empty_tensor_value_info(name) for name in dict.fromkeys(filter(None, node.input))]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = onnx.helper.make_graph([node], "node", inputs, outputs)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
