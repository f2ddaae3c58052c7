import numpy as np
import pytest

from workers.compression.techniques.quantize.integer_layers.ranges import ESTIMATORS, MinMax, MovingAverage, Percentile
from workers.compression.techniques.quantize.integer_layers.smoothing import STRENGTHS, smoothing_factors


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


@pytest.mark.parametrize("strength", STRENGTHS)
def test_smoothing_levels_the_channels_and_keeps_the_product(strength: float) -> None:
    random = np.random.default_rng(0)
    activation = random.normal(size=(32, 16)).astype(np.float32)
    activation[:, 3] *= 100.0
    weight = random.normal(size=(16, 8)).astype(np.float32)
    channels = np.abs(activation).max(axis=0)

    factors = smoothing_factors(channels, [weight], strength)

    smoothed = channels / factors
    assert smoothed.max() / np.median(smoothed) < channels.max() / np.median(channels) / 5
    np.testing.assert_allclose(
        (activation / factors) @ (weight * factors[:, None]), activation @ weight, rtol=2e-3, atol=2e-3
    )
