"""Codes of 1 to 8 bits, packed without gaps.

``pack`` is a stream of bits, least significant first: the first code lies in the lowest bits of the first byte.
``pack_words`` is the layout of compressed-tensors: the same stream for each row by itself, in words of 32 bits.
"""

import numpy as np
import numpy.typing as npt

_WORD_BITS = 32

Codes = npt.NDArray[np.uint8]


def pack(codes: Codes, bits: int) -> Codes:
    """Packs all codes in C order; the last byte is filled with zero bits.

    Args:
        codes: Values below ``1 << bits``, any shape.
        bits: 1 to 8.
    """
    flat = np.ascontiguousarray(codes, np.uint8).reshape(-1)
    if bits == 8:
        return flat.copy()
    share = _share(bits)
    padded = flat
    if flat.size % share:
        padded = np.zeros(-(-flat.size // share) * share, np.uint8)
        padded[: flat.size] = flat
    together = padded.reshape(-1, share)
    if 8 % bits == 0:
        found = together[:, 0].copy()
        for place in range(1, share):
            found |= together[:, place] << np.uint8(place * bits)
        return found
    words = together[:, 0].astype("<u8")
    for place in range(1, share):
        words |= together[:, place].astype("<u8") << np.uint64(place * bits)
    packed = np.ascontiguousarray(words.view(np.uint8).reshape(-1, 8)[:, :bits]).reshape(-1)
    return packed[: packed_size(flat.size, bits)]


def unpack(packed: Codes, bits: int, count: int) -> Codes:
    """The first ``count`` codes of what ``pack`` made, flat.

    Raises:
        ValueError: There are fewer.
    """
    if packed.size < packed_size(count, bits):
        raise ValueError(f"{packed.size} bytes do not hold {count} codes of {bits} bits")
    packed = packed[: packed_size(count, bits)]
    if bits == 8:
        return packed.copy()
    share = _share(bits)
    codes = np.empty((-(-count // share), share), np.uint8)
    mask = np.uint8((1 << bits) - 1)
    if 8 % bits == 0:
        for place in range(share):
            codes[:, place] = (packed >> np.uint8(place * bits)) & mask
    else:
        padded = np.zeros(len(codes) * bits, np.uint8)
        padded[: packed.size] = packed
        bytes_of_words = np.zeros((len(codes), 8), np.uint8)
        bytes_of_words[:, :bits] = padded.reshape(-1, bits)
        words = bytes_of_words.view("<u8")[:, 0]
        for place in range(share):
            codes[:, place] = (words >> np.uint64(place * bits)).astype(np.uint8) & mask
    return codes.reshape(-1)[:count]


def _share(bits: int) -> int:
    """How many codes fill whole bytes together: those of one byte, or eight."""
    return 8 // bits if 8 % bits == 0 else 8


def packed_size(count: int, bits: int) -> int:
    """Bytes of ``count`` packed codes."""
    return -(-count * bits // 8)


def pack_words(codes: Codes, bits: int) -> npt.NDArray[np.int32]:
    """Packs each row of a matrix into whole words of its own.

    Args:
        codes: Shape (rows, columns), values below ``1 << bits``.
        bits: 1 to 8.
    """
    rows, columns = codes.shape
    per_row = -(-columns // _WORD_BITS) * _WORD_BITS
    padded = np.zeros((rows, per_row), np.uint8)
    padded[:, :columns] = codes
    words = pack(padded, bits).view("<i4").reshape(rows, -1)
    return np.ascontiguousarray(words[:, : -(-columns * bits // _WORD_BITS)], np.int32)


def unpack_words(words: npt.NDArray[np.int32], bits: int, columns: int) -> Codes:
    """The matrix of codes that ``pack_words`` packed.

    Raises:
        ValueError: The rows are too short.
    """
    rows, per_row = words.shape
    if per_row * _WORD_BITS < columns * bits:
        raise ValueError(f"{per_row} words do not hold {columns} codes of {bits} bits")
    whole = np.zeros((rows, -(-columns // _WORD_BITS) * bits), np.int32)
    whole[:, :per_row] = words[:, : whole.shape[1]]
    stream = np.ascontiguousarray(whole, "<i4").view(np.uint8)
    codes = unpack(stream.reshape(-1), bits, whole.size * _WORD_BITS // bits)
    return np.ascontiguousarray(codes.reshape(rows, -1)[:, :columns])
