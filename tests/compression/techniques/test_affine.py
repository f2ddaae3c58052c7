import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from workers.compression.specs.job import Target
from workers.compression.techniques.quantize.affine import Grid, channel_axes, quantize
from workers.compression.techniques.quantize.targets import weight_grid

GRIDS = [Grid(signed=True), Grid(signed=True, bits=7), Grid(signed=False), Grid(signed=False, bits=7)]
MATRICES = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.floats(-1e4, 1e4, width=32)
)


@pytest.mark.parametrize("grid", GRIDS)
@settings(deadline=None, max_examples=60)
@given(weights=MATRICES)
def test_no_weight_moves_by_more_than_half_a_step(grid: Grid, weights: np.ndarray) -> None:
    quantized = quantize(weights, grid, (0,))

    slack = 1.0 if not grid.signed else 0.5  # the rounded zero point may shift the ends by half a step more
    assert np.all(np.abs(quantized.restored() - weights) <= (slack + 1e-3) * quantized.scale + 1e-6)


@pytest.mark.parametrize("grid", GRIDS)
def test_zero_stays_exactly_zero(grid: Grid) -> None:
    weights = np.array([[0.0, 0.3, 0.0], [5.0, -0.1, 0.0]], np.float32)

    restored = quantize(weights, grid, (1,)).restored()

    assert np.all(restored[weights == 0.0] == 0.0)


@pytest.mark.parametrize("grid", GRIDS)
def test_constants_do_not_divide_by_zero(grid: Grid) -> None:
    for constant in (0.0, 1e-42, -3.0):
        restored = quantize(np.full((4, 4), constant, np.float32), grid, None).restored()
        np.testing.assert_allclose(restored, constant, atol=1e-6, rtol=1e-2)


def test_scales_follow_the_stated_conventions() -> None:
    weights = np.array([[-1.0, 2.0], [0.5, -4.0]], np.float32)

    symmetric = quantize(weights, Grid(signed=True), channel_axes(2, 1))
    affine = quantize(weights, Grid(signed=False), None)

    np.testing.assert_allclose(symmetric.scale, [[1.0 / 127, 4.0 / 127]], rtol=1e-6)
    np.testing.assert_allclose(affine.scale, 6.0 / 255, rtol=1e-6)
    assert int(affine.zero.item()) == 170


@pytest.mark.parametrize(
    ("hardware", "scheme", "grid"),
    [
        ("cpu-avx2", "auto", Grid(signed=False)),
        ("cpu-avx2", "symmetric", Grid(signed=True, bits=7)),
        ("cpu-vnni", "auto", Grid(signed=True)),
        ("cpu-arm64", "symmetric", Grid(signed=True)),
        ("cpu-vnni", "affine", Grid(signed=False)),
    ],
)
def test_weights_never_saturate_on_their_target(hardware: str, scheme: str, grid: Grid) -> None:
    assert weight_grid(Target(hardware=hardware), scheme) == grid
