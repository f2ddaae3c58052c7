"""What operators relate that arrange, cut and join."""

import sys

import numpy as np
from torch.fx import Node

from workers.compression.families.torch.structure.call import Call, Rule
from workers.compression.families.torch.structure.edits import Portions
from workers.compression.structure.network import Unrelated
from workers.compression.structure.relations import Axes, fixed


def _view(call: Call) -> list[Axes]:
    result = call.network.reshaped(call.axes("self"), call.shape())
    call.sized("size" if call.has("size") else "shape", result)
    return [result]


def _unflatten(call: Call) -> list[Axes]:
    axes = call.axes("self")
    place = call.place(axes)
    count = len(call.argument("sizes"))
    made = call.network.reshaped((axes[place],), call.shape()[place : place + count])
    call.sized("sizes", made)
    return [(*axes[:place], *made, *axes[place + 1 :])]


def _flatten(call: Call) -> list[Axes]:
    return [call.network.reshaped(call.axes("self"), call.shape())]


def _expand(call: Call) -> list[Axes]:
    """Of an axis that is repeated, any of the repetitions may go."""
    shape, axes = call.shape(), call.axes("self")
    repeated = fixed((1,)) * (len(shape) - len(axes)) + axes
    result = tuple(
        call.network.fresh(size) if len(axis) != size else axis for axis, size in zip(repeated, shape, strict=True)
    )
    call.sized("size", result)
    return [result]


def _repeat(call: Call) -> list[Axes]:
    shape, axes = call.shape(), call.axes("self")
    before = fixed((1,)) * (len(shape) - len(axes)) + axes
    longer = [place for place, (axis, size) in enumerate(zip(before, shape, strict=True)) if len(axis) != size]
    return [call.network.padded(before, shape, longer)]


def _permute(call: Call) -> list[Axes]:
    axes = call.axes("self")
    return [tuple(axes[place] for place in call.integers("dims"))]


def _transpose(call: Call) -> list[Axes]:
    axes = list(call.axes("self"))
    one, other = (call.integers(first, second)[0] for first, second in (("dim0", "axis0"), ("dim1", "axis1")))
    axes[one], axes[other] = axes[other], axes[one]
    return [tuple(axes)]


def _turn(call: Call) -> list[Axes]:
    axes = call.axes("self")
    if len(axes) > 2:
        raise Unrelated
    return [axes[::-1]]


def _move(call: Call) -> list[Axes]:
    axes = call.axes("self")
    numbered = np.empty(tuple(range(1, len(axes) + 1)), np.bool_)
    moved = np.moveaxis(numbered, call.integers("source"), call.integers("destination"))
    return [tuple(axes[size - 1] for size in moved.shape)]


def _squeeze(call: Call) -> list[Axes]:
    axes = call.axes("self")
    asked = {place % len(axes) for place in call.integers("dim")} if call.has("dim") else range(len(axes))
    return [tuple(axis for place, axis in enumerate(axes) if place not in asked or len(axis) != 1)]


def _unsqueeze(call: Call) -> list[Axes]:
    axes = call.axes("self")
    place = call.integers("dim")[0] % (len(axes) + 1)
    return [(*axes[:place], *fixed((1,)), *axes[place:])]


def _concat(call: Call) -> list[Axes]:
    return [call.network.concatenated(call.members("tensors"), call.integers("dim")[0])]


def _stack(call: Call) -> list[Axes]:
    members = call.members("tensors")
    axes = call.network.broadcast(members)
    place = call.integers("dim")[0] % (len(axes) + 1)
    return [(*axes[:place], *fixed((len(members),)), *axes[place:])]


def _split(call: Call) -> list[Axes]:
    axes = call.axes("self")
    place = call.place(axes)
    made = call.network.split(axes, place, [shape[place] for shape in call.reading.shapes[call.node]])
    if call.has("chunks") or not _is_computed(call.argument("split_size", "split_sizes")):
        call.reading.edits.append(Portions(call.node, place, tuple(part[place] for part in made)))
    else:
        call.network.lock(axes[place])
    return made


def _is_computed(sizes: object) -> bool:
    return any(isinstance(size, Node) for size in (sizes if isinstance(sizes, list | tuple) else (sizes,)))


def _unbind(call: Call) -> list[Axes]:
    axes = call.axes("self")
    return [call.network.reduced(axes, [call.place(axes)], keep=False)] * len(call.reading.shapes[call.node])


def _select(call: Call) -> list[Axes]:
    axes = call.axes("self")
    return [call.network.reduced(axes, [call.place(axes)], keep=False)]


def _slice(call: Call) -> list[Axes]:
    axes = list(call.axes("self"))
    place = call.place(tuple(axes))
    start, end, step = (call.argument(name) for name in ("start", "end", "step"))
    if _is_computed((start, end, step)):
        return [call.network.padded(tuple(axes), call.shape(), [place])]
    low, high = start or 0, sys.maxsize if end is None else end
    axes[place], before, until = call.network.window(axes[place], low, high, step)
    call.counted("start", before if start else None)
    call.counted("end", until)
    return [tuple(axes)]


def _narrow(call: Call) -> list[Axes]:
    axes = list(call.axes("self"))
    place = call.place(tuple(axes))
    start, length = call.integers("start")[0], call.integers("length")[0]
    start %= len(axes[place])
    axes[place], before, _ = call.network.window(axes[place], start, start + length, 1)
    call.counted("start", before)
    call.counted("length", axes[place])
    return [tuple(axes)]


def _pad(call: Call) -> list[Axes]:
    axes, pads = call.axes(), call.argument("pad", "padding")
    ends = [(len(axes) - 1 - number // 2, pad) for number, pad in enumerate(pads)]
    return [call.network.padded(axes, call.shape(), {place for place, pad in ends if pad != 0})]


def _embedding(call: Call) -> list[Axes]:
    return [call.network.looked_up(call.axes("weight"), 0, call.axes("indices"))]


def _index_select(call: Call) -> list[Axes]:
    axes = call.axes("self")
    return [call.network.looked_up(axes, call.place(axes), call.axes("index"))]


def _size(call: Call) -> list[Axes]:
    """A length is a number that may be put to any use, so its axis stays."""
    axes = call.axes("self")
    call.network.lock(axes[call.place(axes)])
    return []


_SPLITS = "split split_with_sizes chunk unsafe_split unsafe_chunk unsafe_split_with_sizes split_copy"
_PADS = "constant_pad_nd pad reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d"

SHAPES: dict[str, Rule] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view"), _view),
    **dict.fromkeys(("cat", "concat", "concatenate"), _concat),
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _transpose),
    **dict.fromkeys(("t", "numpy_T"), _turn),
    **dict.fromkeys(("movedim", "moveaxis"), _move),
    **dict.fromkeys(_SPLITS.split(), _split),
    **dict.fromkeys(_PADS.split(), _pad),
    "embedding": _embedding,
    "expand": _expand,
    "flatten": _flatten,
    "index_select": _index_select,
    "narrow": _narrow,
    "permute": _permute,
    "repeat": _repeat,
    "select": _select,
    "slice": _slice,
    "squeeze": _squeeze,
    "stack": _stack,
    "sym_size": _size,
    "unbind": _unbind,
    "unflatten": _unflatten,
    "unsqueeze": _unsqueeze,
}
