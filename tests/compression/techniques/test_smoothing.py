import numpy as np
import pytest

from workers.compression.techniques.quantize.integer_layers.smoothing import QUANTILES, smoothing_factors


@pytest.mark.parametrize("quantile", QUANTILES[:3])
def test_outliers_are_levelled_and_no_channel_grows(quantile: float) -> None:
    random = np.random.default_rng(0)
    activation = random.normal(size=(32, 16)).astype(np.float32)
    activation[:, 3] *= 100.0
    weight = random.normal(size=(16, 8)).astype(np.float32)
    channels = np.abs(activation).max(axis=0)

    factors = smoothing_factors(channels, quantile)

    assert factors.min() >= 1.0
    assert factors[3] > 25.0
    assert (channels / factors).max() < 5.0
    np.testing.assert_allclose(
        (activation / factors) @ (weight * factors[:, None]), activation @ weight, rtol=2e-3, atol=2e-3
    )


def test_a_silent_activation_is_left_alone() -> None:
    np.testing.assert_array_equal(smoothing_factors(np.zeros(4, np.float32), 0.5), np.ones(4, np.float32))
