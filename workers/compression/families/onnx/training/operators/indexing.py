"""Operators that pick, place or order elements."""

import torch
import torch.nn.functional as F  # noqa: N812  # the name that torch's own documentation uses

from workers.compression.families.onnx.training.operators.call import Call, Limits, Table, Tensor, integers_of

_SCATTERED = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _counted_from_start(indices: Tensor, size: int) -> Tensor:
    """Indices as int64; negative ones count from the end."""
    indices = indices.long()
    return torch.where(indices < 0, indices + size, indices)


def _gather(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    axis = call.integer("axis", 0) % x.ndim
    found = _counted_from_start(indices, x.shape[axis])
    taken = x.index_select(axis, found.flatten())
    return taken.reshape((*x.shape[:axis], *found.shape, *x.shape[axis + 1 :]))


def _gather_elements(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    axis = call.integer("axis", 0)
    return torch.gather(x, axis, _counted_from_start(indices, x.shape[axis]))


def _gather_nd(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    batch = call.integer("batch_dims", 0)
    if not batch:
        return x[_coordinates(x, indices)]
    grids = torch.meshgrid(*(torch.arange(size, device=x.device) for size in x.shape[:batch]), indexing="ij")
    extra = indices.ndim - 1 - batch
    leading = tuple(grid.reshape(*grid.shape, *[1] * extra) for grid in grids)
    last = tuple(_counted_from_start(indices[..., at], x.shape[batch + at]) for at in range(indices.shape[-1]))
    return x[leading + last]


def _coordinates(x: Tensor, indices: Tensor) -> tuple[Tensor, ...]:
    return tuple(_counted_from_start(indices[..., at], x.shape[at]) for at in range(indices.shape[-1]))


def _scatter_elements(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    axis, reduction = call.integer("axis", 0), call.text("reduction", "none")
    found = _counted_from_start(indices, x.shape[axis])
    if reduction == "none":
        return x.scatter(axis, found, updates)
    return x.scatter_reduce(axis, found, updates, _SCATTERED[reduction])


def _scatter_nd(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    adds = call.text("reduction", "none") == "add"
    return x.index_put(_coordinates(x, indices), updates, accumulate=adds)


def _one_hot(call: Call, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    size = integers_of(depth)[0]
    hot = F.one_hot(_counted_from_start(indices, size), size).to(values.dtype)
    off, on = values[0], values[1]
    return (hot * (on - off) + off).movedim(-1, call.integer("axis", -1))


def _top_k(call: Call, x: Tensor, count: Tensor | None = None) -> tuple[Tensor, ...]:
    k = call.integer("k", 1) if count is None else integers_of(count)[0]
    found = torch.topk(x, k, call.integer("axis", -1), bool(call.integer("largest", 1)))
    return found.values, found.indices


def _non_zero(_: Call, x: Tensor) -> Tensor:
    return torch.nonzero(x).T


TABLE: Table = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "NonZero": _non_zero,
    "OneHot": _one_hot,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TopK": _top_k,
}


def _limit_of_scatter_nd(call: Call) -> str | None:
    reduction = call.text("reduction", "none")
    return None if reduction in {"none", "add"} else f"its reduction is {reduction}"


LIMITS: Limits = {"ScatterND": _limit_of_scatter_nd}
