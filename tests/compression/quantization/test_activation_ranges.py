import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from workers.compression.quantization.activation_ranges import (
    ESTIMATORS,
    MinMax,
    MovingAverage,
    Percentile,
)
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.uniform import Grid, decode, encode, parameters_for

VALUES = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
BATCHES = st.lists(arrays(np.float32, st.integers(1, 40), elements=VALUES), min_size=1, max_size=6)


def ranged(method: str, batches: list[np.ndarray], bits: int = 8) -> tuple[float, float]:
    found = ESTIMATORS[method](bits)
    for batch in batches:
        found.update(batch)
    return found.range()


def squared_error(values: np.ndarray, limits: tuple[float, float], bits: int) -> float:
    grid, blocks = Grid(signed=False, bits=bits), Blocks.spanning(values.shape, None)
    low, high = (np.full(blocks.counts, end, np.float32) for end in limits)
    parameters = parameters_for(low, high, grid)
    restored = decode(encode(values, parameters, grid, blocks), parameters, blocks)
    return float(np.square(restored - values, dtype=np.float64).sum())


@pytest.mark.parametrize("method", ESTIMATORS)
@settings(max_examples=30)
@given(batches=BATCHES)
def test_a_range_holds_zero_and_nothing_that_was_not_seen(method: str, batches: list[np.ndarray]) -> None:
    low, high = ranged(method, batches)

    seen = np.concatenate(batches)
    assert min(0.0, float(seen.min())) <= low <= 0.0 <= high <= max(0.0, float(seen.max()))


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
@settings(max_examples=30)
@given(batches=BATCHES)
def test_the_order_of_batches_does_not_matter_once_the_largest_was_seen(method: str, batches: list[np.ndarray]) -> None:
    first = np.concatenate(batches)

    assert ranged(method, [first, *batches]) == pytest.approx(ranged(method, [first, *batches[::-1]]))


@settings(max_examples=30)
@given(batches=BATCHES)
def test_a_histogram_counts_every_value_in_constant_memory(batches: list[np.ndarray]) -> None:
    found = Percentile()
    size = found.counts.nbytes
    for batch in batches:
        found.update(batch)

    seen = np.concatenate(batches)
    assert found.counts.nbytes == size
    assert found.counts.sum() == (0 if not seen.any() else len(seen) - _leading_zeros(batches))


def _leading_zeros(batches: list[np.ndarray]) -> int:
    """Batches of zeros before anything else have no range to be counted in."""
    count = 0
    for batch in batches:
        if batch.any():
            break
        count += len(batch)
    return count


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shape", ["normal", "one-sided", "heavy"])
def test_least_squares_errs_less_than_every_other_range(bits: int, shape: str) -> None:
    random = np.random.default_rng(0)
    values = random.standard_t(3, 50_000) if shape == "heavy" else random.normal(size=50_000)
    values = (np.abs(values) if shape == "one-sided" else values).astype(np.float32)

    errors = {method: squared_error(values, ranged(method, [values], bits), bits) for method in ESTIMATORS}

    assert errors["mse"] <= 1.03 * min(errors.values())
    assert bits == 8 or errors["mse"] < 0.7 * errors["minmax"]


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_a_single_outlier_is_cut(method: str) -> None:
    values = np.append(np.random.default_rng(0).normal(size=100_000), 30.0).astype(np.float32)

    assert ranged(method, [values], bits=4)[1] < 20.0


def test_entropy_keeps_what_is_evenly_filled() -> None:
    low, high = ranged("entropy", [np.linspace(-1.0, 3.0, 200_001, dtype=np.float32)])

    assert low < -0.9
    assert high > 2.7


@pytest.mark.parametrize("estimator", ESTIMATORS.values())
def test_ranges_hold_zero(estimator: type) -> None:
    found = estimator()
    assert found.range() == (0.0, 0.0)

    found.update(np.array([3.0, 5.0], np.float32))

    low, high = found.range()
    assert low <= 0.0
    assert high >= 4.9


def test_extremes_are_kept() -> None:
    found = MinMax()
    for batch in ([-1.0, 2.0], [-7.0, 0.0], [1.0, 9.0]):
        found.update(np.array(batch, np.float32))

    assert found.range() == (-7.0, 9.0)


def test_one_odd_batch_moves_the_average_little() -> None:
    found = MovingAverage()
    for _ in range(50):
        found.update(np.array([-1.0, 1.0], np.float32))
    found.update(np.array([-1.0, 100.0], np.float32))

    assert found.range()[1] == pytest.approx(10.9)


def test_percentiles_of_a_stream_are_those_of_the_whole() -> None:
    values = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    found = Percentile()
    for batch in np.array_split(values, 37):
        found.update(batch)

    low, high = found.range()
    reach = float(4 * np.abs(values).max() / 1024)
    assert low == pytest.approx(np.percentile(values, 0.01), abs=reach)
    assert high == pytest.approx(np.percentile(values, 99.99), abs=reach)


def test_percentiles_cut_a_single_outlier() -> None:
    found = Percentile()
    found.update(np.append(np.linspace(0.0, 1.0, 100_000, dtype=np.float32), np.float32(50.0)))

    assert found.range()[1] < 1.2
