from typing import get_args

import numpy as np
import pytest

from workers.compression.families.weights import LayerInputs
from workers.compression.quantization.blocks import Blocks, Granularity
from workers.compression.quantization.gptq import inverse_factor
from workers.compression.quantization.rounding import Algorithm, is_usable, quantize_matrix
from workers.compression.quantization.uniform import Scheme
from workers.compression.quantization.weight_ranges import Range

ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)


def heavy_tailed(rows: int, columns: int) -> np.ndarray:
    """Like trained weights: most values small, few large."""
    return (np.random.default_rng(0).standard_t(4, (rows, columns)) * 0.03).astype(np.float32)


def lost(matrix: np.ndarray, rounded: np.ndarray) -> float:
    return float(np.square(matrix.astype(np.float64) - rounded).sum())


def correlated_inputs(columns: int, seed: int = 0) -> LayerInputs:
    """Inputs as layers meet them: a few directions hold most of the energy, a few columns are large."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(columns // 4, columns)) * np.exp(random.normal(size=columns))
    rows = random.normal(size=(1000, columns // 4)) @ mixing + 0.1 * random.normal(size=(1000, columns))
    return LayerInputs((rows.T @ rows / 1000).astype(np.float32), np.abs(rows).mean(axis=0).astype(np.float32), 1000)


def output_error(matrix: np.ndarray, restored: np.ndarray, inputs: LayerInputs) -> float:
    error = (restored - matrix).astype(np.float64)
    return float(np.einsum("ij,jk,ik", error, inputs.gram.astype(np.float64), error))


def made(matrix: np.ndarray, algorithm: Algorithm, inputs: LayerInputs | None = None, **fields: object) -> np.ndarray:
    options = {"bits": 4, "scheme": "affine", "range": "mse", "blocks": Blocks.of_matrix(matrix.shape, "group", 32)}
    return quantize_matrix(matrix, algorithm=algorithm, inputs=inputs, **{**options, **fields}).restored()


@pytest.mark.parametrize("granularity", get_args(Granularity))
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("bits", [2, 5, 8])
def test_integers_stay_on_their_grid_and_near_their_weights(
    bits: int, algorithm: Algorithm, scheme: Scheme, granularity: Granularity
) -> None:
    matrix, inputs = heavy_tailed(33, 70), correlated_inputs(70)
    blocks = Blocks.of_matrix(matrix.shape, granularity, 16)

    found = quantize_matrix(
        matrix, algorithm=algorithm, bits=bits, scheme=scheme, blocks=blocks, range="mse", inputs=inputs
    )

    assert found.integers.shape == matrix.shape
    assert found.integers.dtype == found.grid.dtype
    assert found.grid.limits[0] <= found.integers.min()
    assert found.integers.max() <= found.grid.limits[1]
    assert found.parameters.scale.shape == blocks.counts
    assert (found.parameters.zero is not None) == (scheme == "affine")
    assert (found.parameters.offset is not None) == (scheme == "minmax")
    outputs = output_error(matrix, np.zeros_like(matrix), inputs)
    assert output_error(matrix, found.restored(), inputs) < 0.5 * outputs


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_half_quadratic_zero_points_lose_less_than_whole_ranges(bits: int, scheme: Scheme) -> None:
    matrix = heavy_tailed(96, 128)

    nearest, sparse = (made(matrix, found, bits=bits, scheme=scheme, range="minmax") for found in ("rtn", "hqq"))

    assert lost(matrix, sparse) < 0.95 * lost(matrix, nearest)


@pytest.mark.parametrize("method", get_args(Range))
def test_half_quadratic_zero_points_are_never_worse_than_the_range_they_start_from(method: Range) -> None:
    matrix = heavy_tailed(96, 128)

    nearest, sparse = (made(matrix, found, bits=3, range=method) for found in ("rtn", "hqq"))

    assert lost(matrix, sparse) <= lost(matrix, nearest) * (1 + 1e-4)


@pytest.mark.parametrize("granularity", get_args(Granularity))
@pytest.mark.parametrize("scheme", SCHEMES)
def test_algorithms_that_know_the_inputs_keep_the_outputs_closer(scheme: Scheme, granularity: Granularity) -> None:
    matrix, inputs = heavy_tailed(96, 128), correlated_inputs(128)
    blocks = Blocks.of_matrix(matrix.shape, granularity, 32)

    nearest, aware, compensated = (
        output_error(matrix, made(matrix, found, inputs, scheme=scheme, blocks=blocks), inputs)
        for found in ("rtn", "awq", "gptq")
    )

    assert aware < (1.0 if granularity == "tensor" else 0.95) * nearest
    assert compensated < 0.6 * nearest


def test_columns_that_never_met_an_input_are_rounded_to_nearest() -> None:
    matrix, inputs = heavy_tailed(40, 64), correlated_inputs(64)
    dead = [3, 40, 41]
    inputs.gram[dead] = 0.0
    inputs.gram[:, dead] = 0.0

    nearest, compensated = (made(matrix, found, inputs) for found in ("rtn", "gptq"))

    np.testing.assert_array_equal(compensated[:, dead], nearest[:, dead])
    assert output_error(matrix, compensated, inputs) < output_error(matrix, nearest, inputs)


def test_a_gram_matrix_of_few_rows_is_damped_until_it_can_be_inverted() -> None:
    row = np.random.default_rng(0).normal(size=(1, 50)).astype(np.float32)
    gram = row.T @ row

    factor = inverse_factor(gram)

    damped = gram.astype(np.float64) + np.eye(50) * 0.01 * np.diagonal(gram).mean()
    np.testing.assert_allclose(factor.T.astype(np.float64) @ factor @ damped, np.eye(50), atol=1e-3)
    assert np.array_equal(factor, np.triu(factor))


def test_an_indefinite_gram_matrix_is_damped_more_and_still_serves() -> None:
    matrix, inputs = heavy_tailed(16, 64), correlated_inputs(64)
    inputs.gram[0, 1] = inputs.gram[1, 0] = 50 * np.abs(inputs.gram).max()

    assert np.isfinite(inverse_factor(inputs.gram)).all()
    assert lost(matrix, made(matrix, "gptq", inputs)) < 2 * lost(matrix, made(matrix, "rtn"))


@pytest.mark.parametrize("algorithm", ["gptq", "awq"])
def test_unusable_inputs_leave_rounding_to_nearest(algorithm: Algorithm) -> None:
    matrix = heavy_tailed(16, 64)
    useless = [
        LayerInputs(np.full((64, 64), value, np.float32), np.zeros(64, np.float32), 1) for value in (0.0, np.nan)
    ]

    for inputs in (None, *useless):
        assert not is_usable(inputs)
        np.testing.assert_array_equal(made(matrix, algorithm, inputs), made(matrix, "rtn"))


def test_rounding_over_whole_ranges_is_the_textbooks() -> None:
    matrix = heavy_tailed(8, 64)
    low, high = matrix.min(), matrix.max()

    restored = made(matrix, "rtn", scheme="minmax", range="minmax", blocks=Blocks.of_matrix((8, 64), "tensor"))

    np.testing.assert_allclose(
        restored, np.round((matrix - low) / (high - low) * 15) * (high - low) / 15 + low, atol=1e-6
    )
