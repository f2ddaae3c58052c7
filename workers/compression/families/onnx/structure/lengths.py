"""Lengths of axes that a graph asks for itself, followed to where it uses them.

A length that ends up as a size of the same axis needs no care: it changes with the axis. Whoever does anything else
with it makes the axis stay.
"""

from workers.compression.families.onnx.structure.call import Call, Lengths, Reading
from workers.compression.families.onnx.walking import STANDARD, Place, Value

_PASSING = frozenset({"Cast", "Identity", "Squeeze", "Unsqueeze"})
_SIZES = {"Reshape": 1, "Expand": 1, "Resize": 3}


def follow_lengths(reading: Reading, place: Place, *, related: bool) -> None:
    """Hands lengths on to what a node makes of them, or locks their axes.

    Args:
        related: Whether a rule has taken care of the node.
    """
    read = [reading.index.read(place, slot) for slot in range(len(place.node.input))]
    slots = [slot for slot, value in enumerate(read) if value in reading.lengths]
    if not slots:
        return
    standard = place.node.domain in STANDARD
    if related and standard and slots == [_SIZES.get(place.node.op_type)]:
        return
    made = _handed_on(Call(reading, place)) if related and standard else None
    if made is None:
        for slot in slots:
            lock_lengths(reading, read[slot])
    else:
        reading.lengths[reading.index.made(place)] = made


def lock_lengths(reading: Reading, value: Value | None) -> None:
    """Keeps the axes whose lengths ``value`` holds."""
    lengths = reading.lengths.get(value, ()) if value is not None else ()
    reading.relations.lock(*(length for length in lengths if length is not None and not isinstance(length, int)))


def _handed_on(call: Call) -> Lengths | None:
    operator = call.place.node.op_type
    rows = [call.reading.lengths_of(call.value(slot)) for slot in range(len(call.place.node.input))]
    if operator == "Concat":
        return None if None in rows else tuple(length for row in rows for length in row or ())
    if rows[0] is None or call.value(0) not in call.reading.lengths:
        return None
    if operator in _PASSING:
        return rows[0]
    if operator == "Gather" and (chosen := call.numbers(1)) is not None:
        return tuple(rows[0][number] for number in chosen)
    if operator == "Slice" and call.opset >= 10:
        start, end, step = (call.numbers(slot) for slot in (1, 2, 4))
        if start is not None and end is not None:
            return rows[0][slice(start[0], end[0], step[0] if step else 1)]
    return None
