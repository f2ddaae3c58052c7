"""Operators that make, read or change shapes."""

from collections.abc import Mapping
from itertools import chain
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the name that torch's own documentation uses

from workers.compression.families.onnx.training.operators.call import (
    DTYPES,
    Call,
    Limits,
    Result,
    Table,
    Tensor,
    integers_of,
)

_PAD_MODES: Mapping[str, Literal["reflect", "edge", "wrap"]] = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def _shape(call: Call, x: Tensor) -> Tensor:
    return torch.tensor(list(x.shape)[call.integer("start", 0) : call.attributes.get("end")], dtype=torch.int64)


def _size(_: Call, x: Tensor) -> Tensor:
    return torch.tensor(x.numel())


def _reshape(call: Call, x: Tensor, shape: Tensor) -> Tensor:
    wanted = integers_of(shape)
    if not call.integer("allowzero", 0):
        wanted = [x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    return x.reshape(wanted)


def _flatten(call: Call, x: Tensor) -> Tensor:
    axis = call.integer("axis", 1)
    axis += x.ndim if axis < 0 else 0
    rows = int(np.prod(x.shape[:axis], dtype=np.int64))
    return x.reshape(rows, -1) if x.numel() else x.reshape(rows, int(np.prod(x.shape[axis:], dtype=np.int64)))


def axes_of(call: Call, axes: Tensor | None) -> list[int] | None:
    """Axes that newer operators read as an input and older ones have as an attribute."""
    return call.integers("axes") if axes is None else integers_of(axes)


def _squeeze(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    found = axes_of(call, axes)
    return x.squeeze() if found is None else x.squeeze(tuple(found))


def _unsqueeze(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    found = axes_of(call, axes) or []
    rank = x.ndim + len(found)
    for axis in sorted(axis % rank for axis in found):
        x = x.unsqueeze(axis)
    return x


def _transpose(call: Call, x: Tensor) -> Tensor:
    return x.permute(call.integers("perm") or list(reversed(range(x.ndim))))


def _concat(call: Call, *inputs: Tensor) -> Tensor:
    return torch.cat(inputs, call.integer("axis", 0))


def _split(call: Call, x: Tensor, split: Tensor | None = None) -> Result:
    axis = call.integer("axis", 0)
    sizes = call.integers("split") if split is None else integers_of(split)
    if sizes is None:
        return torch.split(x, -(-x.shape[axis] // call.integer("num_outputs", call.outputs)), axis)
    return torch.split(x, sizes, axis)


def _expand(_: Call, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(np.broadcast_shapes(tuple(x.shape), tuple(integers_of(shape))))


def _tile(_: Call, x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(integers_of(repeats))


def _slice(call: Call, x: Tensor, *bounds: Tensor | None) -> Tensor:
    starts, ends, axes, steps = _slice_bounds(call, bounds)
    for position, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = (position if axes is None else axes[position]) % x.ndim
        step = 1 if steps is None else steps[position]
        if step > 0:
            x = x[(slice(None),) * axis + (slice(start, end, step),)]
        else:
            first = max(start, -x.shape[axis])  # where Python takes nothing, the standard begins with element 0
            taken = range(*slice(first, end, step).indices(x.shape[axis]))
            x = x.index_select(axis, torch.tensor(taken, dtype=torch.int64, device=x.device))
    return x


def _slice_bounds(
    call: Call, bounds: tuple[Tensor | None, ...]
) -> tuple[list[int], list[int], list[int] | None, list[int] | None]:
    if call.opset < 10:
        return call.integers("starts") or [], call.integers("ends") or [], call.integers("axes"), None
    read = [None if bound is None else integers_of(bound) for bound in bounds] + [None] * (4 - len(bounds))
    return read[0] or [], read[1] or [], read[2], read[3]


def _pad(
    call: Call, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None
) -> Tensor:
    amounts = (call.integers("pads") if pads is None else integers_of(pads)) or []
    fill = call.real("value", 0.0) if value is None else value.item()
    padded = [axis % x.ndim for axis in integers_of(axes)] if axes is not None else list(range(x.ndim))
    around = {axis: (amounts[at], amounts[at + len(padded)]) for at, axis in enumerate(padded)}
    mode = call.text("mode", "constant")
    if mode == "constant":
        return F.pad(x, list(chain(*(around.get(axis, (0, 0)) for axis in reversed(range(x.ndim))))), value=fill)
    for axis, (before, after) in around.items():
        if before or after:
            inner = np.arange(max(-before, 0), x.shape[axis] - max(-after, 0))
            positions = np.pad(inner, (max(before, 0), max(after, 0)), mode=_PAD_MODES[mode])
            x = x.index_select(axis, torch.tensor(positions, device=x.device))
    return x


def _range(_: Call, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _constant(call: Call) -> Tensor:
    for name, dtype in (("value_float", torch.float32), ("value_floats", torch.float32)):
        if name in call.attributes:
            return torch.tensor(call.attributes[name], dtype=dtype)
    for name in ("value_int", "value_ints"):
        if name in call.attributes:
            return torch.tensor(call.attributes[name], dtype=torch.int64)
    value: Tensor = call.attributes["value"]
    return value


def _constant_of_shape(call: Call, shape: Tensor) -> Tensor:
    value = call.attributes.get("value", torch.zeros(1))
    return torch.full(integers_of(shape), value.item(), dtype=value.dtype)


def _eye_like(call: Call, x: Tensor) -> Tensor:
    dtype = DTYPES[call.integer("dtype", 0)] if "dtype" in call.attributes else x.dtype
    rows, columns, offset = x.shape[0], x.shape[1], call.integer("k", 0)
    ones = torch.ones(rows, columns, device=x.device)
    return torch.tril(torch.triu(ones, offset), offset).to(dtype)


def _trilu(call: Call, x: Tensor, diagonal: Tensor | None = None) -> Tensor:
    offset = 0 if diagonal is None else int(diagonal)
    return torch.triu(x, offset) if call.integer("upper", 1) else torch.tril(x, offset)


def _depth_to_space(call: Call, x: Tensor) -> Tensor:
    size = call.integer("blocksize", 1)
    rows, channels, height, width = x.shape
    depth = channels // (size * size)
    if call.text("mode", "DCR") == "DCR":
        parts = x.reshape(rows, size, size, depth, height, width).permute(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(rows, depth, size, size, height, width).permute(0, 1, 4, 2, 5, 3)
    return parts.reshape(rows, depth, height * size, width * size)


def _space_to_depth(call: Call, x: Tensor) -> Tensor:
    size = call.integer("blocksize", 1)
    rows, channels, height, width = x.shape
    parts = x.reshape(rows, channels, height // size, size, width // size, size).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(rows, channels * size * size, height // size, width // size)


TABLE: Table = {
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "EyeLike": _eye_like,
    "Flatten": _flatten,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}

HOST_SLOTS = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1, 2, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
"""Inputs that describe shapes: read on the host, so that they stay there while the rest is on an accelerator."""


def _limit_of_constant(call: Call) -> str | None:
    served = {"value", "value_float", "value_floats", "value_int", "value_ints"}
    return None if served & call.attributes.keys() else "it holds text or a sparse tensor"


LIMITS: Limits = {"Constant": _limit_of_constant}
