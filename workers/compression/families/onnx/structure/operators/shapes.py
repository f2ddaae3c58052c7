"""What operators relate that arrange, cut and join."""

from collections.abc import Sequence

import numpy as np

from workers.compression.families.onnx.structure.call import Call, Rule
from workers.compression.families.onnx.structure.edits import Count, Entry, Sizes
from workers.compression.structure.network import Unrelated
from workers.compression.structure.relations import Axes, fixed


def _reshape(call: Call) -> list[Axes]:
    result = call.relations.reshaped(call.axes(0), call.shape())
    if call.attribute("shape") is not None:
        call.edit(Sizes(call.place, {}, {"shape": _entries(call.integers("shape") or [], result)}))
    else:
        _resized(call, 1, result)
    return [result]


def _expand(call: Call) -> list[Axes]:
    """Of an axis that is repeated, any of the repetitions may go."""
    shape = call.shape()
    repeated = tuple(fixed((1,)) * (len(shape) - len(call.axes(0)))) + call.axes(0)
    result = tuple(
        call.relations.fresh(size) if len(axis) != size else axis for axis, size in zip(repeated, shape, strict=True)
    )
    _resized(call, 1, result)
    return [result]


def _resized(call: Call, slot: int, result: Axes) -> None:
    """Notes that an input says how long the axes of ``result`` are; those of unknown origin keep their length."""
    lengths = call.reading.lengths_of(call.value(slot))
    if lengths is None or len(lengths) != len(result):
        raise Unrelated
    entries: list[Entry] = []
    for axis, length in zip(result, lengths, strict=True):
        if isinstance(length, int):
            entries += _entries([length], (axis,))
        else:
            entries.append(None)
            call.relations.link(axis, np.zeros_like(axis) if length is None else length)
    call.edit(Sizes(call.place, {slot: tuple(entries)}, {}))


def _entries(numbers: Sequence[int], result: Axes) -> tuple[Entry, ...]:
    """-1 and 0 fit themselves; a 1 that repeats stays 1."""
    return tuple(
        Count(axis, number) if number == len(axis) > 1 else number
        for number, axis in zip(numbers, result, strict=False)
    )


def _flatten(call: Call) -> list[Axes]:
    return [call.relations.reshaped(call.axes(0), call.shape())]


def _transpose(call: Call) -> list[Axes]:
    axes = call.axes(0)
    order = call.integers("perm") or list(reversed(range(len(axes))))
    return [tuple(axes[place] for place in order)]


def _squeeze(call: Call) -> list[Axes]:
    axes = call.axes(0)
    gone = call.integers("axes", 1)
    places = {axis % len(axes) for axis in gone} if gone else {i for i, axis in enumerate(axes) if len(axis) == 1}
    return [tuple(axis for place, axis in enumerate(axes) if place not in places)]


def _unsqueeze(call: Call) -> list[Axes]:
    axes, new = call.axes(0), call.integers("axes", 1) or []
    rank = len(axes) + len(new)
    places, waiting = {axis % rank for axis in new}, iter(axes)
    return [tuple(fixed((1,))[0] if place in places else next(waiting) for place in range(rank))]


def _concat(call: Call) -> list[Axes]:
    return [call.relations.concatenated(call.operands(), call.integer("axis", 1))]


def _split(call: Call) -> list[Axes]:
    axes = call.axes(0)
    along = call.integer("axis", 0) % len(axes)
    given = call.integers("split", 1)
    count = len(call.place.node.output)
    made = call.relations.split(axes, along, given or [-(-len(axes[along]) // count)] * count)
    parts = [one[along] for one in made]
    sized = tuple(Count(part, len(part)) for part in parts)
    if call.opset >= 13:
        if call.attribute("num_outputs") is not None:
            call.relations.lock(axes[along])  # equal parts without sizes have to stay equal
        else:
            call.edit(Sizes(call.place, {1: sized}, {}))
    else:
        call.edit(Sizes(call.place, {}, {"split": sized}))
    return made


def _slice(call: Call) -> list[Axes]:
    axes = call.axes(0)
    old = call.opset < 10
    starts = call.integers("starts") if old else call.numbers(1)
    ends = call.integers("ends") if old else call.numbers(2)
    along = call.integers("axes", None if old else 3) or list(range(len(starts or axes)))
    steps = call.integers("steps", None if old else 4) or [1] * len(along)
    result = list(axes)
    rows: tuple[list[Entry], list[Entry]] = ([], [])
    for number, axis in enumerate(along):
        place = axis % len(axes)
        if starts is None or ends is None:
            call.relations.lock(axes[place])
            result[place] = fixed((call.shape()[place],))[0]
            continue
        bounds = (starts[number], ends[number])
        result[place], *before = call.relations.window(axes[place], *bounds, steps[number])
        for row, bound, elements in zip(rows, bounds, before, strict=True):
            row.append(bound if elements is None else Count(elements, bound))
    if starts is not None and ends is not None:
        lows, highs = (tuple(row) for row in rows)
        inputs, attributes = {1: lows, 2: highs}, {"starts": lows, "ends": highs}
        call.edit(Sizes(call.place, {} if old else inputs, attributes if old else {}))
    return [tuple(result)]


def _pad(call: Call) -> list[Axes]:
    axes = call.axes(0)
    pads = call.integers("pads", 1)
    along = call.integers("axes", 3) or list(range(len(axes)))
    if pads is None or len(pads) != 2 * len(along):
        raise Unrelated
    grown = [axis for number, axis in enumerate(along) if pads[number] or pads[number + len(along)]]
    return [call.relations.padded(axes, call.shape(), grown)]


def _gather(call: Call) -> list[Axes]:
    axes = call.axes(0)
    place = call.integer("axis", 0) % len(axes)
    return [call.relations.looked_up(axes, place, call.axes(1))]


def _resize(call: Call) -> list[Axes]:
    """Only spatial axes change."""
    axes, shape = call.axes(0), call.shape()
    if call.attribute("axes") is not None or sum(
        len(axis) != size for axis, size in zip(axes[:2], shape[:2], strict=True)
    ):
        raise Unrelated
    result = call.relations.resized(axes, shape)
    if call.has(3):
        _resized(call, 3, result)
    return [result]


def _shape(call: Call) -> list[Axes]:
    axes = call.axes(0)
    asked = axes[slice(call.integer("start", 0), call.integer("end", len(axes)))]
    call.reading.lengths[call.reading.index.made(call.place)] = asked
    return [fixed((len(asked),))]


SHAPES: dict[str, Rule] = {
    "Concat": _concat,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": _resize,
}
