"""Normalizations, with statistics of the batch, the channel or the row; softmax."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the name that torch's own documentation uses

from workers.compression.families.onnx.training.operators.call import Call, Function, Limits, Table, Tensor


def _batch_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Updates ``mean`` and ``variance`` in place while training, unless the scale is frozen."""
    learns = call.training and scale.requires_grad
    rate, epsilon = 1.0 - call.real("momentum", 0.9), call.real("epsilon", 1e-5)
    return F.batch_norm(x, mean, variance, scale, bias, learns, rate, epsilon)


def _instance_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, eps=call.real("epsilon", 1e-5))


def _group_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups = call.integer("num_groups", 1)
    if call.opset < 21:  # one value per group, before there was one per channel
        scale, bias = (values.repeat_interleave(x.shape[1] // groups) for values in (scale, bias))
    return F.group_norm(x, groups, scale, bias, call.real("epsilon", 1e-5))


def _layer_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = call.integer("axis", -1) % x.ndim
    shape, epsilon = list(x.shape[axis:]), call.real("epsilon", 1e-5)
    if list(scale.shape) == shape and (bias is None or list(bias.shape) == shape):
        made = F.layer_norm(x, shape, scale, bias, epsilon)
    else:
        made = F.layer_norm(x, shape, None, None, epsilon) * scale
        made = made if bias is None else made + bias
    if call.outputs == 1:
        return (made,)
    over = tuple(range(axis, x.ndim))
    variance, mean = torch.var_mean(x, over, correction=0, keepdim=True)
    return made, mean, torch.rsqrt(variance + epsilon)


def _root_mean_square_norm(call: Call, x: Tensor, scale: Tensor) -> Tensor:
    over = tuple(range(call.integer("axis", -1) % x.ndim, x.ndim))
    return x * torch.rsqrt(x.square().mean(over, keepdim=True) + call.real("epsilon", 1e-5)) * scale


def _skip_layer_norm(
    call: Call, x: Tensor, skip: Tensor, scale: Tensor, shift: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    total = x + skip if bias is None else x + skip + bias
    made = F.layer_norm(total, [total.shape[-1]], scale, shift, call.real("epsilon", 1e-12))
    return made, made, made, total


def _skip_root_mean_square_norm(
    call: Call, x: Tensor, skip: Tensor, scale: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    total = x + skip if bias is None else x + skip + bias
    made = total * torch.rsqrt(total.square().mean(-1, keepdim=True) + call.real("epsilon", 1e-12)) * scale
    return made, made, made, total


def _local_response_norm(call: Call, x: Tensor) -> Tensor:
    size = call.integer("size", 1)
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    squares = F.pad(x.square().flatten(2), (0, 0, before, after))
    nearby = squares.unfold(1, size, 1).sum(-1).reshape(x.shape)
    scale = call.real("bias", 1.0) + call.real("alpha", 1e-4) / size * nearby
    return x * scale.pow(-call.real("beta", 0.75))


def _norm_of_one(call: Call, x: Tensor) -> Tensor:
    axis, order = call.integer("axis", -1), call.integer("p", 2)
    norm: Tensor = torch.linalg.vector_norm(x, order, axis, keepdim=True)
    return x / norm


def _mean_variance_norm(call: Call, x: Tensor) -> Tensor:
    variance, mean = torch.var_mean(x, call.integers("axes", [0, 2, 3]), correction=0, keepdim=True)
    return (x - mean) / (variance.sqrt() + 1e-9)


def _over_classes(function: Callable[[Tensor, int], Tensor]) -> Function:
    """Before opset 13, everything from the axis on was one class axis."""

    def run(call: Call, x: Tensor) -> Tensor:
        if call.opset >= 13:
            return function(x, call.integer("axis", -1))
        axis = call.integer("axis", 1) % x.ndim
        rows = int(np.prod(x.shape[:axis], dtype=np.int64))
        return function(x.reshape(rows, -1), 1).reshape(x.shape)

    return run


TABLE: Table = {
    "BatchNormalization": _batch_norm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _local_response_norm,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _over_classes(torch.log_softmax),
    "LpNormalization": _norm_of_one,
    "MeanVarianceNormalization": _mean_variance_norm,
    "RMSNormalization": _root_mean_square_norm,
    "SimplifiedLayerNormalization": _root_mean_square_norm,
    "Softmax": _over_classes(torch.softmax),
    "com.microsoft.SkipLayerNormalization": _skip_layer_norm,
    "com.microsoft.SkipSimplifiedLayerNormalization": _skip_root_mean_square_norm,
}


def _limit_of_one_output(call: Call) -> str | None:
    return "it has more than one output" if call.outputs > 1 else None


def _limit_of_skip(call: Call) -> str | None:
    return "its mean is an output" if call.made & {1, 2} else None


LIMITS: Limits = {
    "BatchNormalization": _limit_of_one_output,
    "SimplifiedLayerNormalization": _limit_of_one_output,
    "com.microsoft.SkipLayerNormalization": _limit_of_skip,
    "com.microsoft.SkipSimplifiedLayerNormalization": _limit_of_skip,
}
