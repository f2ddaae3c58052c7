"""Tensors that are the same or nearly so are found among very many, and nothing else is."""

from collections.abc import Callable, Iterable

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from workers.compression.similarity.identity import same_as
from workers.compression.similarity.sketches import relative_distance
from workers.compression.similarity.ties import find_ties, representative

MANY = 10_000
SHAPE = (32, 32)
Array = npt.NDArray[np.generic]


def loaders(tensors: Iterable[Array]) -> dict[str, Callable[[], Array]]:
    return {str(number): (lambda values=values: values) for number, values in enumerate(tensors)}  # type: ignore[misc]


def moved(values: Array, distance: float, random: np.random.Generator) -> Array:
    """Another tensor just so far away, relative to the first one's norm."""
    step = random.standard_normal(values.shape)
    floats = values.astype(np.float64)
    return (floats + step * distance * np.linalg.norm(floats) / np.linalg.norm(step)).astype(values.dtype)


@pytest.mark.parametrize("alike", [0.0, 1.0], ids=["unlike", "gains near one"])
def test_near_pairs_among_ten_thousand_are_found_without_comparing_all(alike: float) -> None:
    random = np.random.default_rng(0)
    spread = 0.02 if alike else 1.0
    tensors = [(alike + spread * random.standard_normal(SHAPE)).astype(np.float32) for _ in range(MANY)]
    expected = {}
    for number in range(0, MANY, 100):
        tensors[number + 50] = moved(tensors[number], 0.0018, random)
        expected[str(number + 50)] = str(number)

    ties = find_ties(loaders(tensors), 0.002)

    assert ties.shared == expected
    sketches, exact = ties.compared
    assert exact < 2 * len(expected)
    assert sketches < MANY * 100, "of fifty million pairs"


def test_very_many_that_are_alike_but_not_enough_cost_no_more_than_a_bound_for_each() -> None:
    random = np.random.default_rng(0)
    first = random.standard_normal(SHAPE)
    tensors = [moved(first, 0.03, random) for _ in range(1000)]

    sketches, exact = find_ties(loaders(tensors), 0.01).compared

    assert sketches <= 1000 * 12 * 32
    assert exact <= 1000 * 4


def test_thousands_of_equal_tensors_are_compared_to_one_only() -> None:
    random = np.random.default_rng(0)
    tensors = [np.ones(16, np.float32)] * MANY + [moved(np.ones(SHAPE), 1e-3, random) for _ in range(1000)]

    ties = find_ties(loaders(tensors), 0.01)

    assert len(set(ties.shared.values())) == 2
    assert len(ties.shared) == MANY + 1000 - 2
    assert ties.compared == (999, 999)


@pytest.mark.parametrize("distance", [0.009, 0.05, 0.09])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_near_is_what_is_within_the_tolerance(distance: float, dtype: type) -> None:
    random = np.random.default_rng(1)
    first = random.standard_normal((64, 64)).astype(dtype)
    pair = loaders([first, moved(first, distance, random)])

    assert find_ties(pair, distance * 1.1).shared == {"1": "0"}
    assert find_ties(pair, distance * 0.9).shared == {}


def test_what_stands_for_near_tensors_errs_least_and_never_beyond_the_tolerance() -> None:
    random = np.random.default_rng(2)
    first = random.standard_normal(SHAPE).astype(np.float32)
    members = [first, *(moved(first, 0.019, random) for _ in range(4)), first.copy()]

    ties = find_ties(loaders(members), 0.02)
    ((kept, values),) = ties.representatives(loaders(members), 0.02)

    assert kept == "0"
    assert set(ties.shared) == {"1", "2", "3", "4", "5"}
    np.testing.assert_allclose(values, np.mean([values.astype(np.float64) for values in members], axis=0), atol=1e-6)
    assert max(relative_distance(values, member) for member in members) <= 0.02


def test_the_first_serves_where_the_mean_would_be_too_far_from_one() -> None:
    first = np.zeros((2, 1024), np.float32)
    first[0] = 1.0
    side = first.copy()
    side[1, 0] = 0.32
    other = first.copy()
    other[1, 0] = -0.32
    members = [(lambda values=values: values, 3) for values in (first, side, side)]  # type: ignore[misc]

    assert representative([*members, (lambda: other, 1)], 0.01) is None


def test_no_tie_across_types_and_shapes_nor_of_integers_zeros_and_nan_that_only_look_alike() -> None:
    random = np.random.default_rng(3)
    floats = random.standard_normal((64, 64)).astype(np.float32)
    counted = np.arange(4096)
    poisoned = floats.copy()
    poisoned[0, 0] = np.nan
    tensors = [
        floats,
        floats.astype(np.float16),
        floats.reshape(32, 128),
        counted,
        counted + (counted == 7),
        np.zeros((64, 64), np.float32),
        np.full((64, 64), 1e-30, np.float32),
        poisoned,
        np.where(np.isnan(poisoned), np.float32(0.5), poisoned) + np.float32(0.5),
        np.array(["text"] * 4096, object),
    ]

    assert find_ties(loaders(tensors[:-1]), 0.1).shared == {}


def test_identical_tensors_that_hold_nan_are_tied_and_stay_as_they_are() -> None:
    poisoned = np.random.default_rng(4).standard_normal((64, 64)).astype(np.float32)
    poisoned[3] = np.nan
    pair = loaders([poisoned, poisoned.copy()])

    for tolerance in (0.0, 0.01):
        ties = find_ties(pair, tolerance)
        assert ties.shared == {"1": "0"}
        assert not list(ties.representatives(pair, tolerance))


def test_nothing_is_identical_that_differs_in_one_bit_type_or_shape() -> None:
    values = np.arange(64, dtype=np.float32)
    other = values.copy()
    other[5] = np.nextafter(other[5], 9.0)
    tensors = {
        "a": values,
        "bit": other,
        "type": values.view(np.int32),
        "shape": values.reshape(8, 8),
        "sign of zero": np.negative(np.zeros(64, np.float32)),
        "zero": np.zeros(64, np.float32),
        "same": values.copy(),
    }

    assert same_as(tensors.items()) == {"same": "a"}
