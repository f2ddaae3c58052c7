"""Thresholds of a feature: floats that lie halfway between two single-precision values of it.

Values of a feature are often decimals, or decimals that were moved and scaled, so that their midpoints lie on a
lattice but for what rounding to single precision did. Then a threshold is so many steps along the lattice and a few
units to the side.
"""

from collections.abc import Iterator

import numpy as np

from workers.compression.archive.trees.arrays import Floats
from workers.compression.archive.trees.columns import Integers, Places, floats_of, ordered
from workers.compression.coding.byte_stream import broken
from workers.compression.coding.range_coder import RangeCoder

_FINE_BITS = 28
_FINE = np.uint64((1 << _FINE_BITS) - 1)
_HALF = np.uint64(1 << (_FINE_BITS - 1))
_SHIFT = np.uint64(_FINE_BITS)
_KINDS = 4
_PLAIN, _MOVED, _DECIMAL = 0, 1, 2
_DECIMALS = (1 << _KINDS) - _DECIMAL
_MOST_STEPS = float(1 << 40)
_NOISE = 2.0**-22
_CLOSE = 1.3
_FITS = 4
_LATTICE_BITS = 128.0
_FLOAT_BITS = 64
_LONGEST = 48

Lattice = tuple[int, float, float]
"""Kind, origin and distance."""
PLAIN: Lattice = (_PLAIN, 0.0, 0.0)


def thresholds(coder: RangeCoder, most: int, known: Places) -> Places:
    """Writes or reads different thresholds as ``ordered`` numbers, rising.

    Raises:
        InvalidModel: What is read are more than ``most``, or no rising numbers.
    """
    count = coder.number("distinct", len(known))
    if count > most:
        raise broken("There are more thresholds than nodes")
    if not count:
        return np.zeros(0, np.uint64)
    writing = len(known) > 0
    lattice = _lattice(coder, _best(known) if writing else PLAIN)
    steps, aside = (each.tolist() for each in _split(known, lattice)) if writing else ([0] * count, [0] * count)
    fine = (known & _FINE).tolist() if writing else [0] * count
    before, curved = 0, lattice[0] != _PLAIN
    for place in range(count):
        context = ("first", lattice[0]) if place == 0 else ("step", lattice[0], before)
        steps[place] = coder.number(context, steps[place])
        before = steps[place].bit_length()
        if curved:
            aside[place] = coder.number(("aside", lattice[0]), aside[place])
        fine[place] = _coded_fine(coder, fine[place])
        if before > _LONGEST or aside[place].bit_length() > _LONGEST:
            raise broken("A threshold is out of its range")
    found = _joined(np.array(steps, np.int64), np.array(aside, np.int64), lattice) | np.array(fine, np.uint64)
    if (found[1:] <= found[:-1]).any():
        raise broken("Thresholds do not rise")
    return found


def _coded_fine(coder: RangeCoder, value: int) -> int:
    """The lowest 28 bits: how many of them there are down to the last one that is set, and those above it."""
    length = coder.number("fine", _FINE_BITS - ((value & -value).bit_length() - 1) if value else 0)
    if length > _FINE_BITS:
        raise broken("A threshold is out of its range")
    return (
        (coder.bits(length - 1, value >> (_FINE_BITS - length + 1)) * 2 + 1) << (_FINE_BITS - length) if length else 0
    )


def _lattice(coder: RangeCoder, known: Lattice) -> Lattice:
    kind = coder.symbol("lattice", _KINDS, known[0])
    if kind == _PLAIN:
        return PLAIN
    if kind >= _DECIMAL:
        return _decimal(kind - _DECIMAL)
    bits = np.array(known[1:], "<f8").view("<u8").tolist()
    read = np.array([coder.bits(_FLOAT_BITS, each) for each in bits], "<u8").view("<f8").tolist()
    if not np.isfinite(read).all():
        raise broken("A lattice is not finite")
    return kind, read[0], read[1]


def _decimal(places: int) -> Lattice:
    """Midpoints of numbers of so many decimal places."""
    return _DECIMAL + places, 0.0, 0.5 / 10**places


def _split(known: Places, lattice: Lattice) -> tuple[Integers, Integers]:
    """Steps between the thresholds, the first one folded, and the units beside the lattice, folded."""
    kind, origin, distance = lattice
    coarse = (known >> _SHIFT).astype(np.int64)
    if kind == _PLAIN:
        places, aside = coarse, np.zeros_like(coarse)
    else:
        places = np.rint((floats_of(known) - origin) / distance).astype(np.int64)
        aside = coarse - _coarse(places, lattice)
    steps = np.diff(places, prepend=0)
    steps[0] = _folded(steps[:1])[0]
    return steps, _folded(aside)


def _joined(steps: Integers, aside: Integers, lattice: Lattice) -> Places:
    """All but the lowest 28 bits."""
    steps[0] = _unfolded(steps[:1])[0]
    places = np.cumsum(steps)
    with np.errstate(all="ignore"):
        coarse = places if lattice[0] == _PLAIN else _coarse(places, lattice) + _unfolded(aside)
    if (coarse < 0).any() or (coarse >> (_FLOAT_BITS - _FINE_BITS)).any():
        raise broken("A threshold is out of its range")
    return coarse.astype(np.uint64) << _SHIFT


def _coarse(places: Integers, lattice: Lattice) -> Integers:
    """The nearest multiple of 2**28 to each point of the lattice, as an ``ordered`` number."""
    points = lattice[1] + lattice[2] * places.astype(np.float64)
    return (ordered(points) + _HALF >> _SHIFT).astype(np.int64)


def _folded(values: Integers) -> Integers:
    """0, -1, 1, -2, ... as 0, 1, 2, 3, ..."""
    return values << 1 ^ values >> 63


def _unfolded(values: Integers) -> Integers:
    return values >> 1 ^ -(values & 1)


def _best(known: Places) -> Lattice:
    """The lattice on which the thresholds take the fewest bits."""
    floats = floats_of(known)
    if len(floats) < 3 or not np.isfinite(floats).all():
        return PLAIN
    return min([PLAIN, *_candidates(floats)], key=lambda lattice: _size(known, lattice))


def _candidates(floats: Floats) -> Iterator[Lattice]:
    most = float(np.abs(floats).max())
    for places in range(_DECIMALS):
        if most / _decimal(places)[2] < _MOST_STEPS:
            yield _decimal(places)
    gaps = np.diff(floats)
    gaps = gaps[gaps > most * _NOISE]
    if not len(gaps):
        return
    for share in (1, 2, 3):
        distance = float(gaps[gaps < _CLOSE * gaps.min()].mean()) / share
        origin = float(floats[0])
        for _ in range(_FITS):
            if not 0 < (floats[-1] - floats[0]) / distance < _MOST_STEPS:
                break
            steps = np.rint((floats - origin) / distance)
            spread = steps - steps.mean()
            if not spread.any():
                break
            distance = float(spread @ (floats - floats.mean()) / (spread @ spread))
            origin = float(floats.mean() - distance * steps.mean())
            yield _MOVED, origin, distance


def _size(known: Places, lattice: Lattice) -> float:
    """About the bits that steps and units take."""
    if lattice[0] == _MOVED and lattice[2] <= 0:
        return np.inf
    steps, aside = _split(known, lattice)
    if (steps < 0).any():
        return np.inf
    bits = np.log2(1.0 + steps[1:]).sum() + np.log2(1.0 + aside).sum() * 1.1
    return float(bits) + (_LATTICE_BITS if lattice[0] == _MOVED else 0.0)
