"""Layers of an ONNX model as two in a row: a narrow one, and one that widens what it makes."""

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto, helper

from workers.compression.factorization.truncation import Factors
from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.entrances import INPUT, WEIGHT
from workers.compression.families.onnx.matrices import weights_in
from workers.compression.families.onnx.walking import Index, Place, Value, integer_attribute, layer_name
from workers.compression.families.weights import Weight

_PRODUCTS = frozenset({"MatMul", "Gemm"})
_WINDOW = frozenset({"auto_pad", "dilations", "kernel_shape", "pads", "strides"})


def factorable(proto: ModelProto) -> list[Weight]:
    """Weights that nothing but matrix products and undivided convolutions read."""
    index = Index.of(proto)
    return [
        weight
        for weight, found in weights_in(index)
        if index.readers.get(found.value)
        and found.value not in index.outputs
        and all(_is_factorable(index, weight, reader.place, reader.slot) for reader in index.readers[found.value])
    ]


def factor(proto: ModelProto, factors: Mapping[str, Factors]) -> None:
    """Puts two layers in the place of each that reads one of the weights, in place.

    Args:
        factors: By name of the weight.
    """
    editor = Editor(proto)
    replaced: list[Value] = []
    for weight, found in weights_in(editor.index):
        if weight.name in factors:
            stored = _store(editor, found.value, weight, factors[weight.name])
            for reader in editor.index.readers[found.value]:
                editor.replace(reader.place, _two_layers(editor, reader.place, stored))
            replaced.append(found.value)
    editor.drop_unread(replaced)
    editor.apply()


def _is_factorable(index: Index, weight: Weight, place: Place, slot: int) -> bool:
    node = place.node
    entering = index.read(place, INPUT)
    if slot != WEIGHT or entering is None or entering in index.stored:
        return False
    if node.op_type == "Conv":
        return integer_attribute(node, "group", 1) == 1 and weight.order == tuple(range(len(weight.shape)))
    if node.op_type not in _PRODUCTS or len(weight.shape) != 2 or integer_attribute(node, "transA", 0):
        return False
    by_rows = bool(integer_attribute(node, "transB", 0))
    return weight.order == ((0, 1) if by_rows else (1, 0))


def _store(editor: Editor, value: Value, weight: Weight, factors: Factors) -> tuple[str, str]:
    """Names of what the two layers read, each laid out as its layer wants it."""
    narrow, wide = factors.right, factors.left
    if len(weight.shape) > 2:
        ones = (1,) * (len(weight.shape) - 2)
        narrow, wide = narrow.reshape(-1, *weight.shape[1:]), wide.reshape(*wide.shape, *ones)
    elif weight.order == (1, 0):
        narrow, wide = narrow.T, wide.T
    parts = (("narrow", narrow), ("wide", wide))
    first, second = (
        editor.store(value.scope, f"{value.name}_{part}", np.ascontiguousarray(found)) for part, found in parts
    )
    return first, second


def _two_layers(editor: Editor, place: Place, stored: tuple[str, str]) -> list[NodeProto]:
    """The second one keeps the layer's name, bias and output."""
    node, (narrow, wide) = place.node, stored
    between = editor.fresh(f"{node.output[0]}_narrow")
    name = editor.fresh(f"{layer_name(node)}_narrow")
    first = NodeProto(op_type=node.op_type, domain=node.domain, name=name)
    first.input.extend([node.input[INPUT], narrow])
    first.output.append(between)
    second = NodeProto()
    second.CopyFrom(node)
    second.input[INPUT], second.input[WEIGHT] = between, wide
    if node.op_type == "Conv":
        first.attribute.extend(found for found in node.attribute if found.name in _WINDOW)
        del second.attribute[:]
    elif node.op_type == "Gemm":
        transposed = integer_attribute(node, "transB", 0)
        first.attribute.append(helper.make_attribute("transB", transposed))
    return [first, second]
