import numpy as np
import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from hypothesis import given
from hypothesis import strategies as st

from workers.compression.coding.packing import pack, pack_words, packed_size, unpack, unpack_words


@given(bits=st.integers(1, 8), data=st.data())
def test_packed_codes_come_back_bit_for_bit(bits: int, data: st.DataObject) -> None:
    codes = np.array(data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=70)), np.uint8)

    packed = pack(codes, bits)

    assert packed.size == packed_size(codes.size, bits)
    assert np.array_equal(unpack(packed, bits, codes.size), codes)


def test_the_first_code_lies_in_the_lowest_bits() -> None:
    assert pack(np.array([1, 2, 3], np.uint8), 4).tolist() == [0x21, 0x03]
    assert pack(np.array([1, 2, 3], np.uint8), 3).tolist() == [0b11_010_001, 0]


def test_missing_bytes_are_noticed() -> None:
    with pytest.raises(ValueError, match="do not hold 9 codes"):
        unpack(np.zeros(4, np.uint8), 4, 9)


@given(bits=st.integers(1, 8), rows=st.integers(1, 4), columns=st.integers(1, 40), seed=st.integers(0, 99))
def test_words_come_back_bit_for_bit(bits: int, rows: int, columns: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, (rows, columns)).astype(np.uint8)

    assert np.array_equal(unpack_words(pack_words(codes, bits), bits, columns), codes)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("columns", [1, 31, 32, 50])
def test_words_are_those_of_compressed_tensors(bits: int, columns: int) -> None:
    codes = np.random.default_rng(0).integers(0, 2**bits, (3, columns)).astype(np.uint8)
    signed = torch.from_numpy((codes.astype(np.int16) - 2 ** (bits - 1)).astype(np.int8))

    assert np.array_equal(pack_words(codes, bits), pack_to_int32(signed, bits).numpy())
