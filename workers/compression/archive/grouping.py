"""Tensors that hold the bits of the same elements: their low and high bits, or positions and values.

A self-expanding ONNX file stores codes of three bits as one tensor of two bits and one of one bit, and the values of a
sparse weight apart from the steps between them. What they say together has less entropy than they have apart.
"""

import math
from dataclasses import dataclass
from itertools import takewhile
from typing import BinaryIO

import numpy as np

from workers.compression.archive import codecs
from workers.compression.archive.spans import Span
from workers.compression.coding import symbols

MOST_PIECES = 4
_MOST_BYTES = 4 << 20
_MOST_BITS = 12
_WORTHWHILE = 1.05

Block = tuple[int, bytes, int]
"""Codec, data and decoded size."""


@dataclass(frozen=True)
class Group:
    """So many pieces, coded as one block."""

    pieces: int
    block: Block


def best_group(file: BinaryIO, pieces: list[Span]) -> Group | None:
    """The first two or more pieces as one block; None if they are no smaller so."""
    bytes_only = list(takewhile(lambda span: span.width == 1 and span.end - span.start <= _MOST_BYTES, pieces))
    sizes = [span.end - span.start for span in bytes_only]
    candidates = [(count, bits) for count in range(2, len(sizes) + 1) for bits in _widths(sizes[:count])]
    if not candidates:
        return None
    contents = [_read(file, span) for span in bytes_only]
    apart = [min(symbols.estimate(np.frombuffer(content, np.uint8)), len(content)) for content in contents]
    best, share = None, _WORTHWHILE
    for count, bits in candidates:
        joined = codecs.join(contents[:count], bits)
        together = math.inf if joined is None else symbols.estimate(joined)
        if together < share * sum(apart[:count]):
            best, share = (count, bits), together / sum(apart[:count])
    return None if best is None else _coded(contents[: best[0]], best[1])


def _coded(contents: list[bytes], bits: list[int]) -> Group | None:
    """What the entropies promise, if tables and all it is smaller than one by one."""
    found = codecs.encode_packed(contents, bits)
    if found is None or len(found[1]) >= sum(len(codecs.encode(content, 1)[1]) for content in contents):
        return None
    return Group(len(contents), (*found, sum(map(len, contents))))


def _read(file: BinaryIO, span: Span) -> bytes:
    file.seek(span.start)
    return file.read(span.end - span.start)


def _widths(sizes: list[int]) -> list[list[int]]:
    """Bits of an element in each tensor such that all have as many elements, fewest first."""
    unit = math.gcd(*sizes)
    shares = [size // unit for size in sizes]
    most = min(8 // max(shares), _MOST_BITS // sum(shares))
    return [[share * times for share in shares] for times in range(1, most + 1) if unit * 8 % times == 0]
