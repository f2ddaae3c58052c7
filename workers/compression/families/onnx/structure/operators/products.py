"""What convolutions and matrix products relate."""

import math

import numpy as np

from workers.compression.families.onnx.structure.call import Call, Rule, Unrelated
from workers.compression.families.onnx.structure.edits import Counted
from workers.compression.structure.relations import Axes, Elements, fixed
from workers.compression.structure.units import Product


def _convolution(call: Call) -> list[Axes]:
    image, kernel, shape = call.axes(0), call.axes(1), call.shape()
    groups = call.integer("group", 1)
    made, read = kernel[0], kernel[1]
    call.relations.lock(*image[2:], *kernel[2:])
    if groups == 1:
        call.relations.link(image[1], read)
        call.reading.summed.append(read)
    elif len(read) == 1:
        call.relations.link(np.repeat(image[1], len(made) // groups), made)
        call.edit(Counted(call.place, "group", image[1]))
    else:
        # The groups stay; in each of them the channels at the same places go.
        call.relations.link(image[1], np.tile(read, groups))
        call.relations.link(made, np.tile(made[: len(made) // groups], groups))
        call.reading.summed.append(read)
    if call.has(2):
        call.relations.link(call.axes(2)[0], made)
    factor = shape[0] * math.prod(shape[2:]) * math.prod(len(axis) for axis in kernel[2:])
    call.reading.products.append(Product(factor, (made, read)))
    result: Axes = (image[0], made, *fixed(shape[2:]))
    return [_added(call, result, 3)]


def _transposed_convolution(call: Call) -> list[Axes]:
    image, kernel, shape = call.axes(0), call.axes(1), call.shape()
    groups = call.integer("group", 1)
    read, made = kernel[0], kernel[1]
    call.relations.lock(*image[2:], *kernel[2:])
    if groups == 1:
        call.relations.link(image[1], read)
        call.reading.summed.append(read)
    elif groups == len(read) and len(made) == 1:
        call.relations.link(image[1], read)
        call.edit(Counted(call.place, "group", image[1]))
        made = image[1]
    else:
        raise Unrelated
    if call.has(2):
        call.relations.link(call.axes(2)[0], made)
    factor = shape[0] * math.prod(len(axis) for axis in (*image[2:], *kernel[2:]))
    call.reading.products.append(Product(factor, (read, kernel[1])))
    return [(image[0], made, *fixed(shape[2:]))]


def _matrix_product(call: Call) -> list[Axes]:
    left, right = call.axes(0), call.axes(1)
    if min(len(left), len(right)) < 2 or call.integer("transBatchA", 0) or call.integer("transBatchB", 0):
        raise Unrelated
    left, right = _turned(call, left, "transA"), _turned(call, right, "transB")
    _sum(call, left[-1], right[-2], left, right)
    batch = call.relations.broadcast([left[:-2], right[:-2]]) if len(left) + len(right) > 4 else ()
    result = (*batch, left[-2], right[-1])
    call.reading.products.append(Product(1.0, (*batch, left[-2], left[-1], right[-1])))
    return [_added(call, result, 2)]


def _turned(call: Call, axes: Axes, attribute: str) -> Axes:
    return (*axes[:-2], axes[-1], axes[-2]) if call.integer(attribute, 0) else axes


def _sum(call: Call, first: Elements, second: Elements, left: Axes, right: Axes) -> None:
    """A sum over channels that a stored weight reads; of a product of activations nothing summed over may go."""
    if call.is_stored(0) or call.is_stored(1):
        call.relations.link(first, second)
        call.reading.summed += [axis for slot, axis in ((0, first), (1, second)) if call.is_stored(slot)]
    else:
        call.relations.lock(first, second)
        call.reading.attention += [*left[:-2], *right[:-2]]


def _added(call: Call, result: Axes, slot: int) -> Axes:
    return call.relations.broadcast([result, call.axes(slot)]) if call.has(slot) else result


PRODUCTS: dict[str, Rule] = {
    "Conv": _convolution,
    "com.microsoft.FusedConv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "MatMul": _matrix_product,
    "Gemm": _matrix_product,
    "com.microsoft.FusedGemm": _matrix_product,
    "com.microsoft.FusedMatMul": _matrix_product,
}
