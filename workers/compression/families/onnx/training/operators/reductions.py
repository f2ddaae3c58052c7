"""Operators that reduce axes to one value each."""

from collections.abc import Callable

import torch

from workers.compression.families.onnx.training.operators.call import Call, Function, Limits, Table, Tensor
from workers.compression.families.onnx.training.operators.shapes import axes_of

_Reduction = Callable[[Tensor, tuple[int, ...], bool], Tensor]


def _reduced(reduction: _Reduction) -> Function:
    """The operator of a reduction over given axes, by default all."""

    def run(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
        found = axes_of(call, axes)
        if not found and call.integer("noop_with_empty_axes", 0):
            return x
        over = found or range(x.ndim)
        return reduction(x, tuple(axis % max(x.ndim, 1) for axis in over), bool(call.integer("keepdims", 1)))

    return run


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keep, dtype=x.dtype)
    return x


def _total(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return torch.sum(x, axes, keep, dtype=x.dtype)


def _mean(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return torch.mean(x, axes, keep)


def _largest(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return torch.amax(x, axes, keep)


def _smallest(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return torch.amin(x, axes, keep)


def _norm1(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return _total(x.abs(), axes, keep)


def _norm2(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, 2, axes, keep)
    return norm


def _square(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return _total(x * x, axes, keep)


def _log_sum(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return torch.log(_total(x, axes, keep))


def _log_sum_exp(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return torch.logsumexp(x, axes, keep)


def _argument(search: Callable[[Tensor, int, bool], Tensor]) -> Function:
    """The operator of a search for a position along one axis."""

    def run(call: Call, x: Tensor) -> Tensor:
        axis, keep = call.integer("axis", 0), bool(call.integer("keepdims", 1))
        if not call.integer("select_last_index", 0):
            return search(x, axis, keep)
        return x.shape[axis] - 1 - search(x.flip(axis), axis, keep)

    return run


def _cumulative_sum(call: Call, x: Tensor, axis: Tensor) -> Tensor:
    along = int(axis) % x.ndim
    turned = x.flip(along) if call.integer("reverse", 0) else x
    total = torch.cumsum(turned, along, dtype=x.dtype)
    if call.integer("exclusive", 0):
        total = total - turned
    return total.flip(along) if call.integer("reverse", 0) else total


TABLE: Table = {
    "ArgMax": _argument(torch.argmax),
    "ArgMin": _argument(torch.argmin),
    "CumSum": _cumulative_sum,
    "ReduceL1": _reduced(_norm1),
    "ReduceL2": _reduced(_norm2),
    "ReduceLogSum": _reduced(_log_sum),
    "ReduceLogSumExp": _reduced(_log_sum_exp),
    "ReduceMax": _reduced(_largest),
    "ReduceMean": _reduced(_mean),
    "ReduceMin": _reduced(_smallest),
    "ReduceProd": _reduced(_product),
    "ReduceSum": _reduced(_total),
    "ReduceSumSquare": _reduced(_square),
}

LIMITS: Limits = {}
