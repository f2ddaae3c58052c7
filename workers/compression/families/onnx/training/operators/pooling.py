"""Pooling over sliding windows and over everything."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812  # the name that torch's own documentation uses

from workers.compression.families.onnx.training.operators.call import Call, Limits, Table, Tensor
from workers.compression.families.onnx.training.operators.convolutions import Pads, padded, pads_of

_MAX: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _windows(call: Call, x: Tensor) -> tuple[list[int], list[int], list[int], Pads, Pads]:
    """Kernel, strides, dilations, padding, and what rounding the output's size up adds at the end."""
    kernel = call.integers("kernel_shape") or []
    ones = [1] * len(kernel)
    strides, dilations = call.integers("strides", ones) or ones, call.integers("dilations", ones) or ones
    sizes = list(x.shape[2:])
    extents = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    pads = pads_of(call, sizes, extents, strides)
    if not call.integer("ceil_mode", 0):
        return kernel, strides, dilations, pads, [(0, 0)] * len(sizes)
    beyond: Pads = []
    for size, extent, stride, (before, after) in zip(sizes, extents, strides, pads, strict=True):
        count = math.ceil((size + before + after - extent) / stride) + 1
        if (count - 1) * stride >= size + before:
            count -= 1  # the last window would lie in the padding alone
        beyond.append((0, max((count - 1) * stride + extent - size - before - after, 0)))
    return kernel, strides, dilations, pads, beyond


def _max_pool(call: Call, x: Tensor) -> Tensor:
    kernel, strides, dilations, pads, beyond = _windows(call, x)
    source = padded(padded(x, pads, -math.inf), beyond, -math.inf)
    return _MAX[len(kernel)](source, kernel, strides, 0, dilations)


def _average_pool(call: Call, x: Tensor) -> Tensor:
    kernel, strides, _, pads, beyond = _windows(call, x)
    average = _AVERAGE[len(kernel)]
    if not any(sum(pair) for pair in pads + beyond):
        return average(x, kernel, strides)
    counted = float(call.integer("count_include_pad", 0))
    ones = padded(padded(torch.ones_like(x[:1, :1]), pads, counted), beyond)
    return average(padded(padded(x, pads), beyond), kernel, strides) / average(ones, kernel, strides)


def _global_average(_: Call, x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


def _global_max(_: Call, x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


TABLE: Table = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "MaxPool": _max_pool,
}


def _limit_of_max_pool(call: Call) -> str | None:
    return "the positions of the maxima are an output" if call.outputs > 1 else None


def _limit_of_average_pool(call: Call) -> str | None:
    dilated = any(dilation != 1 for dilation in call.integers("dilations") or [])
    return "its windows are dilated" if dilated else None


LIMITS: Limits = {"AveragePool": _limit_of_average_pool, "MaxPool": _limit_of_max_pool}
