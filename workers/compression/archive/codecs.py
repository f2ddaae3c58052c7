"""The codecs of a block, by the number that stands for each in the file; ``docs/prsz.md`` describes them."""

from collections.abc import Callable, Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import zstandard

from workers.compression.coding import leading_bits, lzma_stream, packing, planes, symbols
from workers.compression.coding.byte_stream import Reader, broken
from workers.compression.coding.zstd import unzstd

_SMALL_BLOCK = 1 << 20
_THOROUGH, _QUICK = 19, 9
MAX_JOINED_BITS = 16
_PACKED_BITS = (3, 5, 6, 7)
_SAMPLE = 1 << 16


class Codec(IntEnum):
    """How a block is coded. A number is never given to another codec.

    ``TREES`` codes whole files and not parts of them: ``archive.trees.forest`` has it.
    """

    RAW = 0
    CONSTANT = 1
    ZSTD = 2
    PLANES = 3
    SYMBOLS = 4
    PACKED = 5
    LZMA = 6
    LEADING = 7
    TREES = 8


def encode(block: bytes, width: int) -> tuple[Codec, bytes]:
    """The smallest coding of a block.

    Args:
        width: Bytes of an element, 1, 2, 4 or 8.
    """
    if block and block == block[:1] * len(block):
        return Codec.CONSTANT, block[:1]
    coded = list(_candidates(block, width))
    return min([(Codec.RAW, block), *coded], key=lambda found: len(found[1]))


def _candidates(block: bytes, width: int) -> list[tuple[Codec, bytes]]:
    found: list[tuple[Codec, bytes]] = []
    width = width if len(block) % width == 0 else 1
    chosen = symbols.encode(np.frombuffer(block, f"<u{width}"))
    if chosen is not None:
        found.append((Codec.SYMBOLS, bytes([width]) + chosen))
    if width > 1:
        found += _words(block, width)
    else:
        found += _packed(block)
    best = min([len(block), *(len(data) for _, data in found)])
    if _repeats(block, best / max(len(block), 1)):
        level = _THOROUGH if len(block) <= _SMALL_BLOCK else _QUICK
        found.append((Codec.ZSTD, zstandard.ZstdCompressor(level=level).compress(block)))
        if len(block) <= _SMALL_BLOCK:
            found.append((Codec.LZMA, lzma_stream.encode(block)))
    return found


def _words(block: bytes, width: int) -> list[tuple[Codec, bytes]]:
    words, head = np.frombuffer(block, f"<u{width}"), bytes([width])
    found = [(Codec.PLANES, head + planes.encode(words))]
    leading = leading_bits.encode(words) if width in leading_bits.WIDTHS else None
    return found if leading is None else [*found, (Codec.LEADING, head + leading)]


def _packed(block: bytes) -> list[tuple[Codec, bytes]]:
    """Codes of so many bits that they cross the borders of bytes, as ``coding.packing`` packs them."""
    return [found for bits in _PACKED_BITS if (found := encode_packed([block], [bits])) is not None]


def encode_packed(parts: Sequence[bytes], bits: Sequence[int]) -> tuple[Codec, bytes] | None:
    """Codes elements whose low bits, next higher ones and so on are stored in parts of their own.

    Args:
        parts: Packed as ``coding.packing`` does, of as many elements each.
        bits: Of an element in each part.

    Returns:
        None where the parts are something else, or have too many distinct elements.
    """
    joined = join(parts, bits)
    coded = None if joined is None else symbols.encode(joined)
    return None if coded is None else (Codec.PACKED, bytes([len(bits), *bits]) + coded)


def join(parts: Sequence[bytes], bits: Sequence[int]) -> npt.NDArray[np.uint16] | None:
    """The elements whose bits ``parts`` hold; None if they would not give back the same parts."""
    count = len(parts[0]) * 8 // bits[0]
    joined = np.zeros(count, "<u2")
    shift = 0
    for part, width in zip(parts, bits, strict=True):
        if packing.packed_size(count, width) != len(part):
            return None
        codes = packing.unpack(np.frombuffer(part, np.uint8), width, count)
        if count * width % 8 and packing.pack(codes, width).tobytes() != part:
            return None
        joined |= codes.astype("<u2") << np.uint16(shift)
        shift += width
    return joined


def _repeats(block: bytes, share: float) -> bool:
    """Whether zstd may beat a coding to ``share`` of the size: in large blocks it takes long to find out."""
    if len(block) <= _SAMPLE:
        return True
    sample = block[len(block) // 2 :][:_SAMPLE]
    return len(zstandard.ZstdCompressor(level=_QUICK).compress(sample)) < len(sample) * share * 1.1


def decode(codec: int, data: memoryview, size: int) -> bytes | memoryview:
    """The ``size`` bytes of a block.

    Raises:
        InvalidModel: The data is malformed, or the codec is unknown.
    """
    if codec not in _DECODERS:
        raise broken("A block is coded in an unknown way")
    return _DECODERS[codec](data, size)


def _decode_raw(data: memoryview, size: int) -> memoryview:
    if len(data) != size:
        raise broken("A raw block has another size than stated")
    return data


def _decode_constant(data: memoryview, size: int) -> bytes:
    if len(data) != 1:
        raise broken("A constant block is not one byte")
    return bytes(data) * size


def _decode_planes(data: memoryview, size: int) -> memoryview:
    reader = Reader(data)
    width = reader.byte()
    if width not in planes.PLANES or size % width:
        raise broken("Planes have an impossible width")
    return planes.decode(reader.rest(), np.dtype(f"<u{width}"), size // width).data.cast("B")


def _decode_leading(data: memoryview, size: int) -> memoryview:
    reader = Reader(data)
    width = reader.byte()
    if width not in leading_bits.WIDTHS or size % width:
        raise broken("Words with leading bits have an impossible width")
    return leading_bits.decode(reader.rest(), np.dtype(f"<u{width}"), size // width).data.cast("B")


def _decode_symbols(data: memoryview, size: int) -> bytes:
    reader = Reader(data)
    width = reader.byte()
    if width not in {1, 2, 4, 8} or size % width:
        raise broken("Symbols have an impossible width")
    return symbols.decode(reader.rest(), np.dtype(f"<u{width}"), size // width).tobytes()


def _decode_packed(data: memoryview, size: int) -> bytes:
    reader = Reader(data)
    bits = [reader.byte() for _ in range(reader.byte())]
    if not bits or min(bits) < 1 or max(bits) > 8 or sum(bits) > MAX_JOINED_BITS:
        raise broken("Packed codes have an impossible width")
    count = size * 8 // sum(bits)
    if sum(packing.packed_size(count, width) for width in bits) != size:
        raise broken("Packed codes do not fill their block")
    joined = symbols.decode(reader.rest(), np.dtype("<u2"), count)
    if count and int(joined.max()) >> sum(bits):
        raise broken("A packed code is too large")
    parts, shift = [], 0
    for width in bits:
        codes = (joined >> np.uint16(shift)) & np.uint16((1 << width) - 1)
        parts.append(packing.pack(codes.astype(np.uint8), width).tobytes())
        shift += width
    return b"".join(parts)


_DECODERS: dict[int, Callable[[memoryview, int], bytes | memoryview]] = {
    Codec.RAW: _decode_raw,
    Codec.CONSTANT: _decode_constant,
    Codec.ZSTD: unzstd,
    Codec.PLANES: _decode_planes,
    Codec.SYMBOLS: _decode_symbols,
    Codec.PACKED: _decode_packed,
    Codec.LZMA: lzma_stream.decode,
    Codec.LEADING: _decode_leading,
}
