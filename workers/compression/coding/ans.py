"""Range asymmetric numeral systems over interleaved states (Duda, arXiv:1311.2540), in integers only.

Symbol ``i`` belongs to state ``i mod lanes``. A state is a number from 2**16 to below 2**32, frequencies add up to
2**16, and words of 16 bits are moved out and in, so that each state moves at most one word a symbol. All states of
one step are coded by one vectorised pass, and no number is ever a float: every machine decodes the same.
"""

import numpy as np
import numpy.typing as npt

from workers.compression.coding.byte_stream import broken

PRECISION = 16
TOTAL = 1 << PRECISION
_LOWEST = 1 << 16

Symbols = npt.NDArray[np.uint16]
Frequencies = npt.NDArray[np.uint64]


def quantized(counts: npt.NDArray[np.int64]) -> Frequencies:
    """Frequencies that add up to 2**16, at least 1 for each symbol that occurs and 0 for the others.

    Args:
        counts: At most 2**15 symbols, at least one of which occurs.
    """
    present = np.flatnonzero(counts)
    total = int(counts.sum())
    shares = np.maximum(counts[present] * TOTAL // total, 1)
    missing = TOTAL - int(shares.sum())
    if missing >= 0:
        # The symbols that lost most by rounding down gain one each.
        order = np.argsort(-(counts[present] * TOTAL % total), kind="stable")
        shares += missing // len(present)
        shares[order[: missing % len(present)]] += 1
    for place in np.argsort(-shares, kind="stable") if missing < 0 else ():
        taken = min(-missing, int(shares[place]) // 2)
        shares[place] -= taken
        missing += taken
        if not missing:
            break
    frequencies = np.zeros(len(counts), np.uint64)
    frequencies[present] = shares.astype(np.uint64)
    return frequencies


def encode(symbols: Symbols, frequencies: Frequencies, lanes: int) -> bytes:
    """The final states (32 bits each) and then the words, in the order in which the decoder needs them.

    Args:
        symbols: Those of ``frequencies`` that are not 0; any number.
        frequencies: As ``quantized`` makes them.
        lanes: Number of states.
    """
    starts = np.cumsum(frequencies) - frequencies
    states = np.full(lanes, _LOWEST, np.uint64)
    words: list[npt.NDArray[np.uint16]] = []
    for first in range((len(symbols) - 1) // lanes * lanes, -1, -lanes):
        step = symbols[first : first + lanes]
        active = states[: len(step)]
        frequency = frequencies[step]
        full = active >= frequency << np.uint64(PRECISION)
        words.append(active[full].astype("<u2"))
        active[full] >>= np.uint64(16)
        whole, part = np.divmod(active, frequency)
        np.add((whole << np.uint64(PRECISION)) + part, starts[step], out=active)
    return b"".join([states.astype("<u4").tobytes(), *(word.tobytes() for word in reversed(words))])


def decode(data: bytes | memoryview, frequencies: Frequencies, count: int, lanes: int) -> Symbols:
    """The symbols that ``encode`` coded.

    Raises:
        InvalidModel: The data is not what ``encode`` makes of ``count`` symbols.
    """
    if len(data) < 4 * lanes or len(data) % 2:
        raise broken("Coded symbols are cut off")
    states = np.frombuffer(data[: 4 * lanes], "<u4").astype(np.uint64)
    words = np.frombuffer(data[4 * lanes :], "<u2")
    if (states < _LOWEST).any():
        raise broken("A coded state is out of its range")
    owner = np.repeat(np.arange(len(frequencies), dtype=np.uint16), frequencies.astype(np.int64))
    frequency_at = np.repeat(frequencies, frequencies.astype(np.int64))
    offset_at = np.arange(TOTAL, dtype=np.uint64) - (np.cumsum(frequencies) - frequencies)[owner]
    symbols = np.empty(count, np.uint16)
    position = 0
    for first in range(0, count, lanes):
        active = states[: min(lanes, count - first)]
        slot = (active & np.uint64(TOTAL - 1)).astype(np.int64)
        symbols[first : first + lanes] = owner[slot]
        np.add(frequency_at[slot] * (active >> np.uint64(PRECISION)), offset_at[slot], out=active)
        low = np.flatnonzero(active < _LOWEST)
        taken = words[position : position + low.size]
        if taken.size < low.size:
            raise broken("Coded symbols are cut off")
        active[low] = active[low] << np.uint64(16) | taken
        position += low.size
    if position != words.size or (states != _LOWEST).any():
        raise broken("Coded symbols do not end where they should")
    return symbols
