"""Elements of few distinct values: a table of the values, their frequencies, and the entropy-coded choice of each."""

import numpy as np
import numpy.typing as npt
import zstandard

from workers.compression.coding import ans
from workers.compression.coding.byte_stream import Reader, broken, varint
from workers.compression.coding.zstd import unzstd

MAX_DISTINCT = 4096
_SAMPLE = 1 << 16
# About 2.5 bytes of each state are lost, and a step costs the same time whatever the number of states.
_BYTES_PER_LANE = 1024
_TABLE_LEVEL = 19
_TABLE_BYTES = 1.5
_MOST_BYTES_OF_A_FREQUENCY = 3

Elements = npt.NDArray[np.unsignedinteger]


def encode(elements: Elements) -> bytes | None:
    """Codes the elements; None if there are none, or too many distinct ones.

    Args:
        elements: Unsigned integers of 1, 2, 4 or 8 bytes, flat, little-endian.
    """
    if elements.size == 0 or np.unique(elements[:: max(1, elements.size // _SAMPLE)]).size > MAX_DISTINCT:
        return None
    values, symbols, counts = _counted(elements)
    if values.size > MAX_DISTINCT:
        return None
    frequencies = ans.quantized(counts)
    size = -(counts * np.log2(frequencies / ans.TOTAL)).sum() / 8
    lanes = max(1, min(int(size) // _BYTES_PER_LANE, elements.size))
    steps = np.diff(values, prepend=values.dtype.type(0))
    table = steps.tobytes() + b"".join(varint(int(frequency)) for frequency in frequencies[:-1])
    squeezed = zstandard.ZstdCompressor(level=_TABLE_LEVEL).compress(table)
    kept = len(squeezed) < len(table)
    coded = ans.encode(symbols.astype(np.uint16), frequencies, lanes)
    head = [varint(values.size), varint(len(table)), varint(len(squeezed) if kept else 0)]
    return b"".join([*head, squeezed if kept else table, varint(lanes), coded])


def estimate(elements: Elements) -> float:
    """About the bytes that ``encode`` needs: the entropy and the table."""
    counts = _counted(elements)[2]
    return float(counts @ np.log2(max(elements.size, 1) / counts)) / 8 + _TABLE_BYTES * counts.size


def _counted(elements: Elements) -> tuple[Elements, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Distinct values, rising; for each element which of them it is; how often each occurs."""
    if elements.itemsize > 2:
        return np.unique(elements, return_inverse=True, return_counts=True)
    counts = np.bincount(elements)
    values = np.flatnonzero(counts)
    numbers = np.zeros(len(counts), np.int64)
    numbers[values] = np.arange(values.size)
    return values.astype(elements.dtype), numbers[elements], counts[values]


def decode(data: bytes | memoryview, dtype: np.dtype[np.unsignedinteger], count: int) -> Elements:
    """The ``count`` elements that ``encode`` coded.

    Raises:
        InvalidModel: The data is malformed.
    """
    reader = Reader(data)
    distinct = reader.varint(MAX_DISTINCT)
    if not 0 < distinct <= count:
        raise broken("A table of values has an impossible size")
    table = _table(reader, distinct * (dtype.itemsize + _MOST_BYTES_OF_A_FREQUENCY))
    values = np.cumsum(np.frombuffer(table.take(distinct * dtype.itemsize), dtype), dtype=dtype)
    listed = [table.varint(ans.TOTAL) for _ in range(distinct - 1)]
    last = ans.TOTAL - sum(listed)
    if min(listed, default=1) < 1 or last < 1 or table.left:
        raise broken("Frequencies do not add up")
    lanes = reader.varint(count)
    if lanes < 1:
        raise broken("There is no state to decode from")
    frequencies = np.array([*listed, last], np.uint64)
    return values[ans.decode(reader.rest(), frequencies, count, lanes)]


def _table(reader: Reader, limit: int) -> Reader:
    """Differences of the rising values, then all frequencies but the last, which is what is left of 65536."""
    size = reader.varint(limit)
    squeezed = reader.varint(size)
    return Reader(unzstd(reader.take(squeezed), size) if squeezed else reader.take(size))
