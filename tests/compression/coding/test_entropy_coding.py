"""Every codec gives back what it was given, and takes hardly more than the entropy of it."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from workers.compression.archive import codecs
from workers.compression.coding import ans, leading_bits, planes, symbols
from workers.compression.coding.byte_stream import Reader, varint
from workers.compression.specs.errors import InvalidModel

UNSIGNED = st.sampled_from([np.dtype("<u1"), np.dtype("<u2"), np.dtype("<u4"), np.dtype("<u8")])
FEW = settings(max_examples=30, deadline=None)


@st.composite
def skewed(draw: st.DrawFn) -> np.ndarray:
    """Symbols of one, few or very many values, evenly or hardly ever."""
    dtype = draw(UNSIGNED)
    alphabet = draw(st.sampled_from([1, 2, 3, 16, 256, 5000]))
    size = draw(st.integers(0, 6000))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    power = draw(st.sampled_from([1, 4, 40]))
    values = rng.integers(0, np.iinfo(dtype).max, alphabet, dtype=dtype, endpoint=True)
    return values[(rng.random(size) ** power * alphabet).astype(np.int64)]


@FEW
@given(skewed())
def test_symbols_come_back(elements: np.ndarray) -> None:
    coded = symbols.encode(elements)
    if coded is None:
        assert elements.size == 0 or np.unique(elements).size > symbols.MAX_DISTINCT
    else:
        assert np.array_equal(symbols.decode(coded, elements.dtype, elements.size), elements)


@FEW
@given(arrays.arrays(st.sampled_from([np.dtype("<f2"), np.dtype("<f4"), np.dtype("<f8")]), st.integers(0, 300)))
def test_floats_come_back_with_the_bits_of_nans_and_negative_zeros(floats: np.ndarray) -> None:
    words = floats.view(f"<u{floats.itemsize}")
    assert np.array_equal(planes.decode(planes.encode(words), words.dtype, words.size), words)


@st.composite
def weights(draw: st.DrawFn) -> np.ndarray:
    """Normal floats as float32 or rounded to bfloat16, now and then one from far outside: zeros, infinities, NaNs."""
    size = draw(st.integers(0, 400))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    words = rng.normal(0.0, draw(st.sampled_from([1e-30, 0.05, 1e30])), size).astype("<f4").view("<u4")
    for place in draw(st.lists(st.integers(0, size - 1), max_size=3)) if size else ():
        words[place] = draw(st.integers(0, 0xFFFFFFFF))
    return draw(st.sampled_from([words, (words >> 16).astype("<u2")]))


@FEW
@given(weights())
def test_weights_come_back_with_what_lies_outside_of_the_window(words: np.ndarray) -> None:
    coded = leading_bits.encode(words)
    if coded is None:
        assert words.size < 400
    else:
        assert np.array_equal(leading_bits.decode(coded, words.dtype, words.size), words)


def test_leading_bits_of_weights_take_less_than_exponents_at_their_entropy_and_the_rest_as_it_is() -> None:
    floats = np.random.default_rng(3).normal(0.0, 0.05, 1 << 18).astype("<f4")
    words = (floats.view("<u4") >> 16).astype("<u2")
    codec, data = codecs.encode(words.tobytes(), 2)
    counts = np.bincount(words >> 7 & 0xFF)
    shares = counts[counts > 0] / words.size
    assert codec is codecs.Codec.LEADING
    assert 8 * len(data) < words.size * (8 - (shares * np.log2(shares)).sum() - 0.03)


@FEW
@given(weights().filter(lambda words: words.size and leading_bits.encode(words) is not None), st.data())
def test_damaged_leading_bits_are_refused_or_decode_to_as_many(words: np.ndarray, data: st.DataObject) -> None:
    coded = bytearray(leading_bits.encode(words) or b"")
    place = data.draw(st.integers(0, len(coded) - 1))
    coded[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(InvalidModel):
        assert leading_bits.decode(bytes(coded), words.dtype, words.size).size == words.size


@FEW
@given(skewed(), st.sampled_from([1, 2, 4, 8]), st.binary(max_size=7))
def test_a_block_comes_back_whatever_width_is_said(elements: np.ndarray, width: int, more: bytes) -> None:
    block = elements.tobytes() + more
    codec, data = codecs.encode(block, width)
    assert len(data) <= len(block) or not block
    assert bytes(codecs.decode(codec, memoryview(data), len(block))) == block


@pytest.mark.parametrize("alphabet", [2, 8, 16, 256, 1000])
@pytest.mark.parametrize("power", [1.0, 3.0, 12.0])
def test_payloads_of_64_kb_take_at_most_two_percent_over_their_entropy(alphabet: int, power: float) -> None:
    rng = np.random.default_rng(5)
    for count in (1 << 14, 1 << 18):
        chosen = (rng.random(count * 4) ** power * alphabet).astype(np.uint16)
        coded = symbols.encode(chosen)
        shares = np.bincount(chosen)[np.unique(chosen)] / chosen.size
        entropy = -(shares * np.log2(shares)).sum() * chosen.size / 8
        assert coded is not None
        if entropy >= 64_000:
            assert len(coded) <= 1.02 * entropy


@FEW
@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=3000).filter(any))
def test_frequencies_add_up_and_forget_nobody(counts: list[int]) -> None:
    found = np.array(counts, np.int64)
    frequencies = ans.quantized(found)
    assert int(frequencies.sum()) == ans.TOTAL
    assert np.array_equal(frequencies > 0, found > 0)


@FEW
@given(skewed().filter(lambda found: symbols.encode(found) is not None), st.data())
def test_damaged_symbols_are_refused_or_decode_to_as_many(elements: np.ndarray, data: st.DataObject) -> None:
    coded = bytearray(symbols.encode(elements) or b"")
    place = data.draw(st.integers(0, len(coded) - 1))
    coded[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(InvalidModel):
        assert symbols.decode(bytes(coded), elements.dtype, elements.size).size == elements.size


@given(st.integers(0, (1 << 62) - 1))
def test_numbers_come_back_and_only_in_their_shortest_form(value: int) -> None:
    written = varint(value)
    assert Reader(written).varint(value) == value
    longer = written[:-1] + bytes([written[-1] | 0x80, 0])
    with pytest.raises(InvalidModel):
        Reader(longer).varint(1 << 62)
