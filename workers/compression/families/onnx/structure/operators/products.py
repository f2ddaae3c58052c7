"""What convolutions and matrix products relate."""

from workers.compression.families.onnx.structure.call import Call, Rule
from workers.compression.families.onnx.structure.edits import Counted
from workers.compression.structure.network import Unrelated
from workers.compression.structure.relations import Axes


def _convolution(call: Call) -> list[Axes]:
    image, kernel, groups = call.axes(0), call.axes(1), call.integer("group", 1)
    bias = call.axes(2) if call.has(2) else None
    if groups > 1 and len(kernel[1]) == 1:
        call.edit(Counted(call.place, "group", image[1]))
    return [_added(call, call.relations.convolution(image, kernel, bias, call.shape(), groups), 3)]


def _transposed_convolution(call: Call) -> list[Axes]:
    image, groups = call.axes(0), call.integer("group", 1)
    bias = call.axes(2) if call.has(2) else None
    if groups > 1:
        call.edit(Counted(call.place, "group", image[1]))
    return [call.relations.transposed_convolution(image, call.axes(1), bias, call.shape(), groups)]


def _matrix_product(call: Call) -> list[Axes]:
    if call.integer("transBatchA", 0) or call.integer("transBatchB", 0):
        raise Unrelated
    left, right = _turned(call, call.axes(0), "transA"), _turned(call, call.axes(1), "transB")
    result = call.relations.product(left, right, (call.is_stored(0), call.is_stored(1)))
    return [_added(call, result, 2)]


def _turned(call: Call, axes: Axes, attribute: str) -> Axes:
    return (*axes[:-2], axes[-1], axes[-2]) if call.integer(attribute, 0) else axes


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
