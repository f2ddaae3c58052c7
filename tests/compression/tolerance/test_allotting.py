"""Shares of a total are those with the least sum of errors, exact and in every case."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.compression.quantization.allocation import Option, least_error
from workers.compression.tolerance.allotting import Allotment, Curve

MEASURED = (0.2, 0.5, 0.8, 0.95)


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    """Convex in the share, as errors of pruned weights mostly are: e(s) = scale * s**power."""
    size, power = draw(st.integers(10, 100_000)), draw(st.floats(1.0, 6.0))
    scale = 10.0 ** draw(st.floats(-4.0, 2.0))
    return Curve(size, MEASURED, tuple(scale * share**power for share in MEASURED))


def error(curve: Curve, share: float) -> float:
    return float(np.interp(share, *curve.hull()))


def total_error(parts: dict[str, Curve], shares: dict[str, float]) -> float:
    return sum(error(parts[name], share) for name, share in shares.items())


@given(found=st.lists(curves(), min_size=2, max_size=6), total=st.floats(0.0, 1.0), data=st.data())
def test_no_exchange_between_parts_lowers_the_error(found: list[Curve], total: float, data: st.DataObject) -> None:
    parts = {str(index): curve for index, curve in enumerate(found)}
    allotment = Allotment(parts)
    shares = allotment.shares(total)
    sizes = {name: curve.size for name, curve in parts.items()}
    pruned = sum(shares[name] * size for name, size in sizes.items())
    assert pruned == pytest.approx(min(total, allotment.most) * sum(sizes.values()), rel=1e-9, abs=1e-9)
    assert all(0.0 <= share <= MEASURED[-1] for share in shares.values())
    giver, taker = data.draw(st.permutations(sorted(parts)))[:2]
    most = min(shares[giver] * sizes[giver], (MEASURED[-1] - shares[taker]) * sizes[taker])
    moved = data.draw(st.floats(0.0, 1.0)) * most
    other = shares | {
        giver: shares[giver] - moved / sizes[giver],
        taker: shares[taker] + moved / sizes[taker],
    }
    least = total_error(parts, shares)
    assert total_error(parts, other) >= least - 1e-9 * max(least, 1.0)


def test_it_agrees_with_integer_programming() -> None:
    parts = {
        "first": Curve(4000, MEASURED, (0.001, 0.01, 0.2, 3.0)),
        "second": Curve(1000, MEASURED, (0.01, 0.05, 0.1, 0.5)),
        "third": Curve(300, MEASURED, (0.3, 0.9, 2.0, 8.0)),
    }
    allotment = Allotment(parts)
    for total in (0.3, 0.6, 0.85):
        layers = [
            [Option(0, (1.0 - share) * curve.size, at) for share, at in zip(*curve.hull(), strict=True)]
            for curve in parts.values()
        ]
        stay = (1.0 - total) * sum(curve.size for curve in parts.values())
        # The program takes whole corners, the allotment one part of a corner: never worse.
        assert total_error(parts, allotment.shares(total)) <= least_error(layers, stay).error * (1 + 1e-6)


def test_a_part_whose_loss_costs_nothing_goes_first_and_one_that_costs_all_last() -> None:
    shares = Allotment({"dead": Curve(100, MEASURED, (0.0,) * 4), "vital": Curve(100, MEASURED, (1e18,) * 4)}).shares(
        0.475
    )
    assert shares == pytest.approx({"dead": 0.95, "vital": 0.0})


def test_noise_does_not_make_an_error_fall() -> None:
    shares, errors = Curve(100, MEASURED, (0.02, 0.01, 0.5, 0.4)).smooth()
    assert shares[0] == errors[0] == 0.0
    assert math.isclose(shares[-1], MEASURED[-1])
    assert np.all(np.diff(errors) >= 0.0)
