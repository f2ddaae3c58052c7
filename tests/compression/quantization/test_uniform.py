import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from workers.compression.quantization.blocks import Blocks, Granularity
from workers.compression.quantization.uniform import Grid, Scheme, channel_axes, quantize

KERNEL_GRIDS = [Grid(signed=signed, bits=bits) for signed in (True, False) for bits in (7, 8)]
SCHEMES: tuple[Scheme, ...] = ("affine", "symmetric", "minmax")
GRANULARITIES: tuple[Granularity, ...] = ("tensor", "channel", "group", "block")
MATRICES = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 6), st.integers(1, 9)), elements=st.floats(-1e4, 1e4, width=32)
)


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(deadline=None, max_examples=200)
@given(weights=MATRICES, bits=st.integers(2, 8), granularity=st.sampled_from(GRANULARITIES), group=st.integers(1, 5))
def test_no_weight_moves_by_more_than_half_a_step(
    scheme: Scheme, weights: np.ndarray, bits: int, granularity: Granularity, group: int
) -> None:
    blocks = Blocks.of_matrix(weights.shape, granularity, group)

    quantized = quantize(weights, Grid.of(scheme, bits), blocks, scheme)

    step = blocks.spread(quantized.parameters.scale)
    assert np.all(np.abs(quantized.restored() - weights) <= 0.5001 * step + 1e-6 * np.abs(weights) + 1e-37)


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(deadline=None, max_examples=100)
@given(weights=MATRICES, bits=st.integers(2, 8))
def test_signed_and_unsigned_integers_stand_for_the_same_values(scheme: Scheme, weights: np.ndarray, bits: int) -> None:
    found = quantize(weights, Grid.of(scheme, bits), Blocks.of_matrix(weights.shape, "group", 4), scheme)

    for other in (found.signed(), found.unsigned(), found.signed().unsigned(), found.unsigned().signed()):
        assert other.integers.dtype == other.grid.dtype
        assert other.integers.min() >= other.grid.limits[0]
        assert other.integers.max() <= other.grid.limits[1]
        tolerance = 1e-5 * np.abs(weights).max(initial=0.0) + 1e-37 if scheme == "minmax" else 0.0
        np.testing.assert_allclose(other.restored(), found.restored(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("bits", range(2, 9))
def test_minmax_is_the_formula_of_the_textbook(bits: int) -> None:
    weights = np.random.default_rng(0).normal(size=(1, 200)).astype(np.float32)
    low, high = weights.min(), weights.max()

    found = quantize(weights, Grid.of("minmax", bits), Blocks.of_matrix(weights.shape, "tensor"), "minmax")

    textbook = np.round((weights.astype(np.float64) - low) / (np.float64(high) - low) * (2**bits - 1))
    assert np.mean(found.integers == textbook) > 0.99  # ties and the last bit of a float32 quotient aside
    assert np.max(np.abs(found.integers - textbook)) <= 1
    assert found.integers.min() == 0
    assert found.integers.max() == 2**bits - 1


@pytest.mark.parametrize("grid", KERNEL_GRIDS)
@settings(deadline=None, max_examples=60)
@given(weights=MATRICES)
def test_grids_of_integer_kernels_keep_half_a_step_too(grid: Grid, weights: np.ndarray) -> None:
    quantized = quantize(weights, grid, Blocks.spanning(weights.shape, (0,)))

    assert np.all(np.abs(quantized.restored() - weights) <= 0.5001 * quantized.parameters.scale + 1e-5)


@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_zero_stays_exactly_zero(scheme: Scheme, bits: int) -> None:
    weights = np.array([[0.0, 0.3, 0.0], [5.0, -0.1, 0.0], [7.0, 9.0, 0.0]], np.float32)

    restored = quantize(weights, Grid.of(scheme, bits), Blocks.spanning(weights.shape, (1,)), scheme).restored()

    assert np.all(restored[weights == 0.0] == 0.0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_constants_do_not_divide_by_zero(scheme: Scheme) -> None:
    for constant in (0.0, 1e-42, -3.0, 5e4):
        weights = np.full((4, 4), constant, np.float32)
        restored = quantize(weights, Grid.of(scheme, 8), Blocks.spanning(weights.shape, None), scheme).restored()
        np.testing.assert_allclose(restored, constant, atol=1e-6, rtol=1e-2)


def test_scales_follow_the_stated_conventions() -> None:
    weights = np.array([[-1.0, 2.0], [0.5, -4.0]], np.float32)
    channels = Blocks.spanning(weights.shape, channel_axes(2, 1))

    onnxruntime = quantize(weights, Grid(signed=True), channels)
    torch = quantize(weights, Grid(signed=True, narrow=False), channels)
    affine = quantize(weights, Grid(signed=False), Blocks.spanning(weights.shape, None))

    np.testing.assert_allclose(onnxruntime.parameters.scale, [[1.0 / 127, 4.0 / 127]], rtol=1e-6)
    np.testing.assert_allclose(torch.parameters.scale, [[1.0 / 127.5, 4.0 / 127.5]], rtol=1e-6)
    np.testing.assert_allclose(affine.parameters.scale, 6.0 / 255, rtol=1e-6)
    assert int(affine.zeros.item()) == 170
    assert int(affine.signed().zeros.item()) == 170 - 128


@settings(deadline=None)
@given(
    shape=st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 3)),
    lengths=st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 3)),
)
def test_blocks_come_apart_and_together_again(shape: tuple[int, ...], lengths: tuple[int, ...]) -> None:
    blocks = Blocks(shape, tuple(min(pair) for pair in zip(shape, lengths, strict=True)))
    values = np.arange(np.prod(shape)).reshape(shape)

    assert np.array_equal(blocks.joined(blocks.split(values)), values)
    highest = blocks.spread(blocks.reduced(values, np.maximum))
    for place in np.ndindex(*shape):
        block = tuple(slice(i // n * n, (i // n + 1) * n) for i, n in zip(place, blocks.lengths, strict=True))
        assert highest[place] == values[block].max()
