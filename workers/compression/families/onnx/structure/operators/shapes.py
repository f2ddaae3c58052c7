"""What operators relate that arrange, cut and join."""

from collections.abc import Sequence

import numpy as np

from workers.compression.families.onnx.structure.call import Call, Rule, Unrelated
from workers.compression.families.onnx.structure.edits import Count, Entry, Sizes
from workers.compression.families.onnx.walking import Value
from workers.compression.structure.relations import Axes, Elements, fixed

_END = np.iinfo(np.int32).max


def _reshape(call: Call) -> list[Axes]:
    result = call.relations.reshaped(call.axes(0), call.shape())
    if call.attribute("shape") is not None:
        call.edit(Sizes(call.place, {}, {"shape": _entries(call, call.integers("shape") or [], result)}))
    else:
        _resized(call, 1, result)
    return [result]


def _expand(call: Call) -> list[Axes]:
    result = call.relations.broadcast([call.axes(0), fixed((1,) * len(call.shape()))])
    longer = [len(axis) != size for axis, size in zip(result, call.shape(), strict=True)]
    result = tuple(
        fixed((size,))[0] if new else axis for axis, size, new in zip(result, call.shape(), longer, strict=True)
    )
    _resized(call, 1, result)
    return [result]


def _resized(call: Call, slot: int, result: Axes) -> None:
    """Notes that an input says how long the axes of ``result`` are; those of which it computes the length stay."""
    entries: list[Entry] = []
    for part, numbers in _parts(call, call.value(slot)):
        if numbers is not None:
            entries += _entries(call, numbers, result[len(entries) :])
        elif part is None:
            raise Unrelated
        else:
            entries.append(part)
    if len(entries) != len(result):
        raise Unrelated
    call.relations.lock(*(axis for axis, entry in zip(result, entries, strict=True) if isinstance(entry, str)))
    call.edit(Sizes(call.place, {slot: tuple(entries)}, {}))


def _entries(call: Call, numbers: Sequence[int], result: Axes) -> tuple[Entry, ...]:
    """-1 and 0 fit themselves; a 1 that repeats stays 1."""
    return tuple(
        Count(axis, number) if number == len(axis) > 1 else number
        for number, axis in zip(numbers, result, strict=False)
    )


def _parts(call: Call, value: Value | None) -> list[tuple[str | None, list[int] | None]]:
    """The pieces a row of sizes is made of: a name if it is a single computed one, its numbers if they are known."""
    if value is None:
        return [(None, None)]
    numbers = call.reading.known(value)
    if numbers is not None:
        return [(None, [int(number) for number in np.asarray(numbers).reshape(-1)])]
    maker = call.reading.index.makers.get(value)
    if maker is not None and maker.node.op_type == "Concat":
        read = [call.reading.index.read(maker, slot) for slot in range(len(maker.node.input))]
        return [part for piece in read for part in _parts(call, piece)]
    shape = call.reading.shapes.get(value.name)
    alone = shape == (1,) and value.scope is call.place.scope
    return [(value.name if alone else None, None)]


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
    portions = given or [-(-len(axes[along]) // count)] * count
    bounds = np.minimum(np.cumsum([0, *portions]), len(axes[along]))
    parts = [axes[along][start:stop] for start, stop in zip(bounds[:-1], bounds[1:], strict=True)]
    if any(len(part) == 0 for part in parts):
        raise Unrelated
    sized = tuple(Count(part, len(part)) for part in parts)
    if call.opset >= 13:
        if call.attribute("num_outputs") is not None:
            call.relations.lock(axes[along])  # equal parts without sizes have to stay equal
        else:
            call.edit(Sizes(call.place, {1: sized}, {}))
    else:
        call.edit(Sizes(call.place, {}, {"split": sized}))
    return [(*axes[:along], part, *axes[along + 1 :]) for part in parts]


def _slice(call: Call) -> list[Axes]:
    axes = call.axes(0)
    old = call.opset < 10
    starts = call.integers("starts") if old else call.numbers(1)
    ends = call.integers("ends") if old else call.numbers(2)
    along = call.integers("axes", None if old else 3) or list(range(len(starts or axes)))
    steps = call.integers("steps", None if old else 4) or [1] * len(along)
    result = list(axes)
    bounds: tuple[list[Entry], list[Entry]] = ([], [])
    for number, axis in enumerate(along):
        place = axis % len(axes)
        if starts is None or ends is None:
            call.relations.lock(axes[place])
            result[place] = fixed((call.shape()[place],))[0]
            continue
        window = _window(call, axes[place], starts[number], ends[number], steps[number])
        result[place] = window[0]
        bounds[0].append(window[1])
        bounds[1].append(window[2])
    if starts is not None and ends is not None:
        lows, highs = (tuple(row) for row in bounds)
        inputs, attributes = {1: lows, 2: highs}, {"starts": lows, "ends": highs}
        call.edit(Sizes(call.place, {} if old else inputs, attributes if old else {}))
    return [tuple(result)]


def _window(call: Call, axis: Elements, start: int, end: int, step: int) -> tuple[Elements, Entry, Entry]:
    """What is cut out of an axis, and the bounds. Those counted from the end or in steps keep their axis whole."""
    low, high, _ = slice(start, end, step).indices(len(axis))
    cut = axis[start:end:step]
    if step == 1 and len(cut) == len(axis):
        return axis, start, max(end, _END)
    if step != 1 or start < 0 or end < 0:
        call.relations.lock(axis)
        return cut, start, end
    return cut, Count(axis[:low], start), Count(axis[:high], end) if end <= len(axis) else end


def _pad(call: Call) -> list[Axes]:
    axes = call.axes(0)
    pads = call.integers("pads", 1)
    along = call.integers("axes", 3) or list(range(len(axes)))
    if pads is None or len(pads) != 2 * len(along):
        raise Unrelated
    result = list(axes)
    for number, axis in enumerate(along):
        if pads[number] or pads[number + len(along)]:
            call.relations.lock(axes[axis])
            result[axis] = fixed((call.shape()[axis],))[0]
    return [tuple(result)]


def _gather(call: Call) -> list[Axes]:
    axes = call.axes(0)
    place = call.integer("axis", 0) % len(axes)
    call.relations.lock(axes[place], *call.axes(1))
    return [(*axes[:place], *fixed(tuple(len(axis) for axis in call.axes(1))), *axes[place + 1 :])]


def _resize(call: Call) -> list[Axes]:
    """Only spatial axes change."""
    axes, shape = call.axes(0), call.shape()
    if call.attribute("axes") is not None or sum(
        len(axis) != size for axis, size in zip(axes[:2], shape[:2], strict=True)
    ):
        raise Unrelated
    call.relations.lock(*axes[2:])
    result: Axes = (*axes[:2], *fixed(shape[2:]))
    if call.has(3):
        _resized(call, 3, result)
    return [result]


def _shape(call: Call) -> list[Axes]:
    """Whoever asks for a length may do anything with it, so that it has to stay."""
    axes = call.axes(0)
    start, stop = call.integer("start", 0), call.integer("end", len(axes))
    asked = list(axes[slice(start, stop)])
    call.relations.lock(*(asked[place] for place in _asked(call, len(asked))))
    return [fixed((len(asked),))]


def _asked(call: Call, count: int) -> set[int]:
    """Which of the lengths are looked at."""
    made = call.reading.index.made(call.place)
    if made in call.reading.index.outputs:
        return set(range(count))
    asked: set[int] = set()
    for reader in call.reading.index.readers.get(made, []):
        follower = Call(call.reading, reader.place)
        if reader.place.node.op_type == "Gather" and reader.slot == 0 and (numbers := follower.numbers(1)) is not None:
            asked |= {number % count for number in numbers}
        elif reader.place.node.op_type == "Slice" and reader.slot == 0 and follower.opset >= 10:
            low, high, step = (follower.numbers(slot) for slot in (1, 2, 4))
            if low is None or high is None:
                return set(range(count))
            asked |= set(range(count)[slice(low[0], high[0], step[0] if step else 1)])
        else:
            return set(range(count))
    return asked


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
