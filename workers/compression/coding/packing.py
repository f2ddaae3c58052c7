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
    if 8 % bits == 0:
        share = 8 // bits
        padded = np.zeros(-(-flat.size // share) * share, np.uint8)
        padded[: flat.size] = flat
        shifts = (np.arange(share, dtype=np.uint8) * bits).astype(np.uint8)
        return np.asarray(np.bitwise_or.reduce(padded.reshape(-1, share) << shifts, axis=1), np.uint8)
    planes = np.unpackbits(flat[:, None], axis=1, count=bits, bitorder="little")
    return np.packbits(planes.reshape(-1), bitorder="little")


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
    if 8 % bits == 0:
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        codes = (packed[:, None] >> shifts) & np.uint8((1 << bits) - 1)
        return np.ascontiguousarray(codes.reshape(-1)[:count])
    planes = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(-1, bits)
    return np.packbits(planes, axis=1, bitorder="little").reshape(-1)


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
