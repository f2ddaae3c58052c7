"""Bits are allocated optimally: as brute force finds them, and never worse than greedy or uniform."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.compression.quantization.allocation import Allocation, Option, least_cost, least_error
from workers.compression.specs.errors import ConstraintInfeasible

Layers = list[list[Option]]

BITS = (2, 3, 4, 6, 8)


@st.composite
def instances(draw: st.DrawFn) -> Layers:
    """Up to six layers of different sizes, errors over eight orders of magnitude."""
    layers = []
    for _ in range(draw(st.integers(1, 6))):
        size = draw(st.integers(1, 10_000_000))
        exponent = draw(st.floats(-8.0, 0.0))
        falls = draw(st.lists(st.floats(0.5, 30.0), min_size=len(BITS), max_size=len(BITS)))
        errors = 10.0**exponent / np.cumprod(falls)
        layers.append([Option(b, b * size + 8, float(e)) for b, e in zip(BITS, errors, strict=True)])
    return layers


def brute_force(layers: Layers) -> list[tuple[Option, ...]]:
    return list(itertools.product(*layers))


def total(chosen: Sequence[Option]) -> tuple[float, float]:
    return sum(option.cost for option in chosen), sum(option.error for option in chosen)


@settings(max_examples=40, deadline=None)
@given(instances(), st.floats(0.0, 1.0))
def test_no_choice_within_the_budget_errs_less(layers: Layers, share: float) -> None:
    low, high = sum(o[0].cost for o in layers), sum(o[-1].cost for o in layers)
    budget = low + share * (high - low)
    found = least_error(layers, budget)
    best = min(total(chosen)[1] for chosen in brute_force(layers) if total(chosen)[0] <= budget)
    assert found.cost <= budget
    assert found.error <= best * (1 + 1e-6)
    assert found.gap == pytest.approx(0.0, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(instances(), st.floats(0.0, 1.0))
def test_no_choice_within_the_error_is_cheaper(layers: Layers, share: float) -> None:
    low, high = sum(o[-1].error for o in layers), sum(o[0].error for o in layers)
    max_error = low * (high / low) ** share if share > 0 else low
    found = least_cost(layers, max_error)
    best = min(total(chosen)[0] for chosen in brute_force(layers) if total(chosen)[1] <= max_error)
    assert found.error <= max_error
    assert found.cost <= best * (1 + 1e-6)


def greedy(layers: Layers, budget: float) -> float:
    """Raises bits where a bit saves most, until the budget is spent; the error it ends with."""
    levels = [0] * len(layers)
    while True:
        spent = sum(options[level].cost for options, level in zip(layers, levels, strict=True))
        steps = [
            ((options[level].error - options[level + 1].error) / (options[level + 1].cost - options[level].cost), index)
            for index, (options, level) in enumerate(zip(layers, levels, strict=True))
            if level + 1 < len(options) and spent + options[level + 1].cost - options[level].cost <= budget
        ]
        if not steps:
            return sum(options[level].error for options, level in zip(layers, levels, strict=True))
        levels[max(steps)[1]] += 1


def test_hundreds_of_layers_are_solved_to_a_small_gap() -> None:
    random = np.random.default_rng(0)
    layers = []
    for _ in range(300):
        size, scale = int(random.integers(1_000, 1_000_000)), 10.0 ** random.uniform(-6, -2)
        layers.append([Option(b, 1.0 * b * size, scale * 4.0 ** -(b - 2) * random.uniform(0.7, 1.4)) for b in BITS])
    budget = 4.0 * sum(options[0].cost / 2 for options in layers)
    found = least_error(layers, budget)
    assert found.cost <= budget
    assert found.gap < 1e-4
    uniform = sum(options[BITS.index(4)].error for options in layers)
    assert found.error <= greedy(layers, budget)
    assert found.error < 0.8 * uniform


def test_what_cannot_be_reached_is_named() -> None:
    layers = [[Option(4, 400.0, 1e-2), Option(8, 800.0, 1e-3)]]
    with pytest.raises(ConstraintInfeasible, match="400"):
        least_error(layers, 399.0)
    with pytest.raises(ConstraintInfeasible, match=r"0\.001"):
        least_cost(layers, 1e-4)


def test_nothing_to_allocate_costs_nothing() -> None:
    assert least_error([], 0.0) == Allocation((), 0.0)


def test_the_same_instance_has_the_same_answer() -> None:
    layers = [[Option(b, b * 10.0, 2.0**-b) for b in BITS] for _ in range(20)]
    first, second = (least_error(layers, 800.0) for _ in range(2))
    assert first == second
    assert first.cost <= 800.0


def test_a_budget_missed_by_less_than_the_solver_sees_costs_one_step_and_not_all() -> None:
    sizes = (1, 1, 1, 1, 18)
    layers = [[Option(b, b * size + 8, 0.5 if b == 8 else 1.0) for b in BITS] for size in sizes]
    most = float(sum(options[-1].cost for options in layers))
    budget = float(np.nextafter(most, 0.0))

    found = least_error(layers, budget)

    assert found.cost <= budget
    assert found.error == min(total(chosen)[1] for chosen in brute_force(layers) if total(chosen)[0] <= budget)
