"""Lossless coding of bfloat16 and float32: the exponent and the mantissa's leading bits as one symbol.

Exponents alone take about 2.7 bits in trained weights (ZipNN, arXiv:2411.05239). The mantissa's leading bits are not
the noise they are taken for there: within an octave small magnitudes are more frequent than large ones, the more so
the further out, which is worth .07 bits a word. The twelve bits after a word's sign are its exponent and four bits of
its mantissa. A window of 160 such numbers holds nearly all words; their places in it are entropy coded, and what is
left of the word is stored as it is: sign and three bits of two words in a byte, then whole bytes. A wider window would
hold more words, but zstd's Huffman codes of at most 11 bits are wasteful of the rare numbers at its end.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.compression.coding.byte_stream import Reader, broken
from workers.compression.coding.planes import BLOCK, Words, decode_plane, encode_plane

LEADING = 12
WINDOW = 160
_OUTSIDE = WINDOW
_LAST_BASE = (1 << LEADING) - WINDOW - 1
"""With it even what stands for the outside is a number of twelve bits, and does not touch the sign."""
_MOST_OUTSIDE = 1 / 32
"""Share of the words, each of which takes about a byte more."""


@dataclass(frozen=True)
class _Layout:
    """Where the parts of a word lie, and how a byte's two halves get there, both at once.

    Args:
        shift: Bits below the leading ones.
        double: Holds two words, the first one in its lower half.
        spread: A byte times this has each of its bits where it belongs, among others.
        mask: Those that belong there.
    """

    shift: int
    double: np.dtype[np.unsignedinteger]
    spread: int
    mask: int


_LAYOUTS = {
    2: _Layout(3, np.dtype("<u4"), 1 | 1 << 12 | 1 << 24, 0x80078007),
    4: _Layout(19, np.dtype("<u8"), 1 << 16 | 1 << 28 | 1 << 44 | 1 << 56, 0x80070000_80070000),
}
WIDTHS = frozenset(_LAYOUTS)
"""Bytes of a word."""


def encode(words: Words) -> bytes | None:
    """Codes words of 2 or 4 bytes, flat, little-endian; None where too many lie outside of every window."""
    kind, sign = words.dtype.type, words.itemsize * 8 - 1
    shift = _LAYOUTS[words.itemsize].shift
    leading = _leading(words)
    before = np.concatenate([[0], np.cumsum(np.bincount(leading, minlength=1 << LEADING))])
    inside = before[WINDOW:] - before[:-WINDOW]
    base = int(inside[: _LAST_BASE + 1].argmax())
    if len(words) - inside[base] > len(words) * _MOST_OUTSIDE:
        return None
    places = leading - np.uint16(base)
    is_outside = places >= WINDOW
    places[is_outside] = _OUTSIDE
    halves = (words >> kind(sign) << kind(3) | words >> kind(shift - 3) & kind(7)).astype(np.uint8)
    pairs = np.pad(halves, (0, len(words) % 2)).reshape(-1, 2)
    planes = [places.astype(np.uint8), pairs[:, 0] | pairs[:, 1] << 4]
    if words.itemsize == 4:
        planes.append((words & kind(0xFFFF)).astype("<u2"))
    outside = leading[is_outside]
    planes += [(outside >> 4).astype(np.uint8), (outside & 15).astype(np.uint8)]
    return b"".join([base.to_bytes(2, "little"), *(encode_plane(plane.tobytes()) for plane in planes)])


def decode(data: bytes | memoryview, dtype: np.dtype[np.unsignedinteger], count: int) -> Words:
    """The ``count`` words that ``encode`` coded.

    Raises:
        InvalidModel: The data is malformed.
    """
    reader = Reader(data)
    base = int.from_bytes(reader.take(2), "little")
    if base > _LAST_BASE:
        raise broken("A window lies beyond the last number")
    places = decode_plane(reader, 1, count)
    pairs = decode_plane(reader, 1, (count + 1) // 2)
    rest = decode_plane(reader, 2, count) if dtype.itemsize == 4 else None
    where = np.flatnonzero(places >= _OUTSIDE)
    high, low = (decode_plane(reader, 1, len(where)) for _ in range(2))
    if reader.left or (places[where] > _OUTSIDE).any() or (low > 15).any():
        raise broken("Leading bits do not end where they should, or are too large")
    words = _joined(places, pairs, rest, base, dtype)[:count]
    shift = dtype.type(_LAYOUTS[dtype.itemsize].shift)
    leading = high.astype(dtype) << dtype.type(4) | low
    words[where] ^= (_leading(words[where]) ^ leading) << shift
    return words


def _leading(words: Words) -> npt.NDArray[np.uint16]:
    kind = words.dtype.type
    shift = _LAYOUTS[words.itemsize].shift
    return (words >> kind(shift) & kind((1 << LEADING) - 1)).astype(np.uint16)


def _joined(places: Words, pairs: Words, rest: Words | None, base: int, dtype: np.dtype[np.unsignedinteger]) -> Words:
    """All words as if they lay inside of the window; one more if their number is odd."""
    layout = _LAYOUTS[dtype.itemsize]
    words = np.empty(2 * len(pairs), dtype)
    spread = np.empty(BLOCK // 2, layout.double)
    scale, start = dtype.type(1 << layout.shift), dtype.type(base << layout.shift)
    # Blocks stay in the processor's cache from the first pass over them to the last.
    for first in range(0, len(words), BLOCK):
        block = words[first : first + BLOCK]
        known = places[first : first + BLOCK]
        block[len(known) :] = 0
        block[: len(known)] = known
        block *= scale
        block += start
        double = block.view(layout.double)
        half = spread[: len(double)]
        half[:] = pairs[first // 2 : (first + BLOCK) // 2]
        half *= layout.double.type(layout.spread)
        half &= layout.double.type(layout.mask)
        double |= half
        if rest is not None:
            block[: len(known)] |= rest[first : first + BLOCK]
    return words
