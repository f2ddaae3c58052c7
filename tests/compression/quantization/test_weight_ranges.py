import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from workers.compression.quantization.block_rows import pieces
from workers.compression.quantization.blocks import Blocks, Granularity
from workers.compression.quantization.divergence import BINS, factor_of_least_divergence
from workers.compression.quantization.uniform import Grid, Scheme, decode, encode, quantize
from workers.compression.quantization.weight_ranges import Range, fitted, joined

SCHEMES: tuple[Scheme, ...] = ("affine", "symmetric", "minmax")
GRANULARITIES: tuple[Granularity, ...] = ("tensor", "channel", "group", "block")
ESTIMATED: tuple[Range, ...] = ("percentile", "entropy", "mse")
MATRICES = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 6), st.integers(1, 9)), elements=st.floats(-1e4, 1e4, width=32)
)


def restored(matrix: np.ndarray, grid: Grid, blocks: Blocks, scheme: Scheme, method: Range) -> np.ndarray:
    parameters = fitted(matrix, grid, blocks, scheme, method)
    assert parameters.scale.shape == blocks.counts
    assert np.all(parameters.scale > 0)
    return decode(encode(matrix, parameters, grid, blocks), parameters, blocks)


def lost(matrix: np.ndarray, rounded: np.ndarray) -> float:
    return float(np.square(matrix.astype(np.float64) - rounded).sum())


def heavy_tailed(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Like trained weights: most values small, few large."""
    return (np.random.default_rng(seed).standard_t(4, (rows, columns)) * 0.03).astype(np.float32)


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(deadline=None, max_examples=25)
@given(matrix=MATRICES, bits=st.integers(2, 8), granularity=st.sampled_from(GRANULARITIES), group=st.integers(1, 5))
def test_searched_ranges_never_lose_more_than_whole_ones(
    scheme: Scheme, matrix: np.ndarray, bits: int, granularity: Granularity, group: int
) -> None:
    grid, blocks = Grid.of(scheme, bits), Blocks.of_matrix(matrix.shape, granularity, group)

    searched = lost(matrix, restored(matrix, grid, blocks, scheme, "mse"))

    # Steps of searched ranges have the precision of float16, which costs the largest integer a share of a step.
    step = blocks.spread(quantize(matrix, grid, blocks, scheme).parameters.scale).astype(np.float64)
    allowed = np.square(step * grid.limits[1] * 2.0**-11).sum() + 1e-9 * np.square(matrix, dtype=np.float64).sum()
    assert searched**0.5 <= lost(matrix, quantize(matrix, grid, blocks, scheme).restored()) ** 0.5 + allowed**0.5


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_searched_ranges_lose_less_where_a_few_values_are_large(
    bits: int, scheme: Scheme, granularity: Granularity
) -> None:
    matrix = heavy_tailed(48, 200)
    grid, blocks = Grid.of(scheme, bits), Blocks.of_matrix(matrix.shape, granularity, 32)

    whole, searched = (lost(matrix, restored(matrix, grid, blocks, scheme, method)) for method in ("minmax", "mse"))

    assert searched < 0.97 * whole


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_clipped_ranges_lose_less_of_a_whole_matrix(method: Range) -> None:
    matrix = heavy_tailed(200, 200)
    grid, blocks = Grid.of("affine", 4), Blocks.of_matrix(matrix.shape, "tensor")

    whole, clipped = (lost(matrix, restored(matrix, grid, blocks, "affine", found)) for found in ("minmax", method))

    assert clipped < 0.7 * whole


@pytest.mark.parametrize("method", ESTIMATED)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_zero_stays_exactly_zero(granularity: Granularity, method: Range) -> None:
    matrix = heavy_tailed(20, 50)
    matrix[:, ::3] = 0.0

    for scheme in ("affine", "symmetric"):
        blocks = Blocks.of_matrix(matrix.shape, granularity, 16)
        rounded = restored(matrix, Grid.of(scheme, 3), blocks, scheme, method)
        assert np.all(rounded[:, ::3] == 0.0)


@pytest.mark.parametrize("method", ESTIMATED)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_constants_stay_what_they_are(scheme: Scheme, method: Range) -> None:
    for constant in (0.0, -3.0, 5e4, 1e-42):
        matrix = np.full((4, 40), constant, np.float32)
        rounded = restored(matrix, Grid.of(scheme, 8), Blocks.of_matrix(matrix.shape, "group", 16), scheme, method)
        np.testing.assert_allclose(rounded, constant, atol=1e-6, rtol=5e-3)


@pytest.mark.parametrize("method", ESTIMATED)
def test_what_fills_up_a_shorter_last_group_does_not_count(method: Range) -> None:
    matrix = heavy_tailed(1, 37)
    grid = Grid.of("affine", 3)

    whole = restored(matrix, grid, Blocks.of_matrix(matrix.shape, "group", 32), "affine", method)
    last = restored(matrix[:, 32:], grid, Blocks.of_matrix((1, 5), "tensor"), "affine", method)

    if method == "mse":
        assert lost(matrix[:, 32:], whole[:, 32:]) == pytest.approx(lost(matrix[:, 32:], last), rel=1e-3)
    assert whole.shape == matrix.shape


def test_columns_with_more_weight_lose_less() -> None:
    matrix, weights = heavy_tailed(64, 64), np.ones(64, np.float32)
    weights[:8] = 100.0
    grid, blocks = Grid.of("affine", 3), Blocks.of_matrix(matrix.shape, "channel")

    even, weighed = (
        decode(encode(matrix, found, grid, blocks), found, blocks)
        for found in (
            fitted(matrix, grid, blocks, "affine", "mse"),
            fitted(matrix, grid, blocks, "affine", "mse", weights),
        )
    )

    assert lost(matrix[:, :8], weighed[:, :8]) < lost(matrix[:, :8], even[:, :8])
    assert lost(matrix, even) < lost(matrix, weighed)


def test_a_lone_outlier_is_cut_and_an_even_distribution_is_not() -> None:
    even = np.full(BINS, 50)
    bell = np.bincount(
        np.clip(np.random.default_rng(0).normal(BINS / 2, 40, 100_000).astype(int), 0, BINS - 1), minlength=BINS
    )
    bell[-1] += 1

    assert factor_of_least_divergence(even, 0.5, 4) > 0.97
    assert factor_of_least_divergence(bell, 0.5, 4) < 0.5


def test_pieces_of_a_matrix_are_fitted_like_the_whole() -> None:
    matrix = heavy_tailed(40, 64)
    grid, blocks = Grid.of("affine", 4), Blocks.of_matrix(matrix.shape, "block", 16)

    cut = [fitted(matrix[rows], grid, own, "affine", "mse") for rows, own in pieces(blocks, elements=1)]

    assert len(cut) == 3
    whole = fitted(matrix, grid, blocks, "affine", "mse")
    np.testing.assert_array_equal(joined(cut).scale, whole.scale)
    np.testing.assert_array_equal(joined(cut).zero, whole.zero)
