"""Lossless coding of floats: exponents apart from the rest (as in ZipNN, arXiv:2411.05239).

Each word is turned left by one bit, so that its sign becomes the lowest bit and the highest byte is the exponent (for
bfloat16 and float32 exactly). Bytes of the same place are then stored together and each such plane by itself:
exponents of trained weights take about 2.6 bits, signs and mantissas are noise and stay as they are.
"""

import numpy as np
import numpy.typing as npt
import zstandard

from workers.compression.coding.byte_stream import Reader, broken, varint
from workers.compression.coding.zstd import unzstd

# Widths in bytes of the planes of a word, the lowest bits first; one plane for what is noise anyway.
PLANES = {2: (1, 1), 4: (2, 1, 1), 8: (4, 2, 1, 1)}
BLOCK = 1 << 16
_RAW, _ZSTD = 0, 1
_WORTHWHILE = 0.99

# Exponents have an entropy, but repeat nothing: a tiny table that finds no matches leaves zstd its Huffman coder
# alone, which is smaller here and decodes several times faster than with matches of a few bytes.
_HUFFMAN = zstandard.ZstdCompressionParameters(
    window_log=17, hash_log=6, chain_log=6, min_match=7, strategy=zstandard.STRATEGY_FAST, write_content_size=1
)
_MATCHES = zstandard.ZstdCompressionParameters.from_level(9, write_content_size=1)

Words = npt.NDArray[np.unsignedinteger]


def encode(words: Words) -> bytes:
    """Codes words of 2, 4 or 8 bytes, flat, little-endian."""
    bits = words.itemsize * 8
    turned = words << words.dtype.type(1) | words >> words.dtype.type(bits - 1)
    grouped = turned.view(np.uint8).reshape(-1, words.itemsize)
    pieces: list[bytes] = []
    place = 0
    for width in PLANES[words.itemsize]:
        plane = np.ascontiguousarray(grouped[:, place : place + width]).tobytes()
        place += width
        pieces.append(encode_plane(plane))
    return b"".join(pieces)


def encode_plane(plane: bytes) -> bytes:
    """A plane with its head: by zstd, or as it is where that saves next to nothing."""
    coded = min((zstandard.ZstdCompressor(compression_params=way).compress(plane) for way in _ways(plane)), key=len)
    if len(coded) >= len(plane) * _WORTHWHILE:
        return varint(_RAW) + plane
    return varint(len(coded) << 1 | _ZSTD) + coded


def _ways(plane: bytes) -> tuple[zstandard.ZstdCompressionParameters, ...]:
    """Matches are searched for only where a sample of the plane has some: constant or repeated words."""
    sample = plane[: 1 << 16]
    plain, matched = (
        len(zstandard.ZstdCompressor(compression_params=way).compress(sample)) for way in (_HUFFMAN, _MATCHES)
    )
    return (_HUFFMAN, _MATCHES) if matched < plain * 0.9 else (_HUFFMAN,)


def decode(data: bytes | memoryview, dtype: np.dtype[np.unsignedinteger], count: int) -> Words:
    """The ``count`` words that ``encode`` coded.

    Raises:
        InvalidModel: The data is malformed.
    """
    reader = Reader(data)
    planes = [decode_plane(reader, width, count) for width in PLANES[dtype.itemsize]]
    if reader.left:
        raise broken("Bytes follow the last plane")
    words = np.empty(count, dtype)
    turned = np.empty(BLOCK, dtype)
    one, most = dtype.type(1), dtype.type(dtype.itemsize * 8 - 1)
    targets, place = [], 0
    for plane in planes:
        view = words.view(plane.dtype).reshape(count, dtype.itemsize // plane.itemsize)
        targets.append(view[:, place // plane.itemsize])
        place += plane.itemsize
    # Blocks stay in the processor's cache from the first pass over them to the last.
    for first in range(0, count, BLOCK):
        last = min(first + BLOCK, count)
        for target, plane in zip(targets, planes, strict=True):
            target[first:last] = plane[first:last]
        block, upper = words[first:last], turned[: last - first]
        np.left_shift(block, most, out=upper)
        np.right_shift(block, one, out=block)
        np.bitwise_or(block, upper, out=block)
    return words


def decode_plane(reader: Reader, width: int, count: int) -> Words:
    """The next plane: ``count`` numbers of ``width`` bytes.

    Raises:
        InvalidModel: It is malformed.
    """
    size = count * width
    head = reader.varint(size << 1 | 1)
    content = reader.take(head >> 1 if head & 1 else size)
    if head & 1:
        content = memoryview(unzstd(content, size))
    elif head >> 1:
        raise broken("A plane says how long it is though that is known")
    return np.frombuffer(content, f"<u{width}")
