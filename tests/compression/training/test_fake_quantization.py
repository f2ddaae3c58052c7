"""Rounding that learns: its values, its gradients, and that the integers it ends in are those it computed with."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from workers.compression.families.weights import Weight
from workers.compression.quantization.uniform import Grid
from workers.compression.training.fake_quantization import Dense, RoundedInput, RoundedWeight
from workers.compression.training.initial_steps import Watched, range_of_least_error, step_of_least_error
from workers.compression.training.substitutes import Masked

bits = st.integers(2, 8)
seeds = st.integers(0, 1 << 30)
LINEAR = Weight("w", "layer", (6, 20), "float32", "linear", (0, 1))
LAYOUTS = {
    "linear": LINEAR,
    "inputs first": Weight("w", "layer", (20, 6), "float32", "linear", (1, 0)),
    "convolution": Weight("w", "layer", (6, 5, 2, 2), "float32", "convolution", (0, 1, 2, 3)),
    "transposed convolution": Weight("w", "layer", (5, 6, 2, 2), "float32", "convolution", (1, 0, 2, 3)),
    "recurrent": Weight("w", "layer", (2, 3, 20), "float32", "recurrent", (0, 1, 2), 2),
}


def values_of(shape: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rounded_weight(weight: Weight, grid: Grid, seed: int = 0, *, per_channel: bool = True) -> RoundedWeight:
    return RoundedWeight(Dense(values_of(weight.shape, seed)), weight, grid, per_channel=per_channel)


@given(bits=bits, narrow=st.booleans(), per_channel=st.booleans(), seed=seeds, layout=st.sampled_from(sorted(LAYOUTS)))
def test_integers_restore_to_the_very_values_that_were_computed_with(
    bits: int, narrow: bool, per_channel: bool, seed: int, layout: str
) -> None:
    weight = LAYOUTS[layout]
    module = rounded_weight(weight, Grid(signed=True, bits=bits, narrow=narrow), seed, per_channel=per_channel)

    form, computed = module.form(), module().detach().numpy()

    np.testing.assert_array_equal(weight.from_matrix(form.restored()), computed)
    assert form.integers.min() >= module.grid.limits[0]
    assert form.integers.max() <= module.grid.limits[1]
    assert form.parameters.scale.shape == ((weight.matrix_shape[0], 1) if per_channel else (1, 1))


@given(bits=bits, seed=seeds)
def test_what_a_grid_reaches_is_off_by_half_a_step_at_most(bits: int, seed: int) -> None:
    module = rounded_weight(LINEAR, Grid.of("symmetric", bits), seed)
    low, high = module.grid.limits
    step = module.log_step.detach().exp()[:, None]
    values = module.source().detach()

    error = (module().detach() - values).abs()

    reached = (values >= low * step) & (values <= high * step)
    assert bool(reached.any())
    assert bool((error <= step / 2 * 1.0001)[reached].all())


@given(bits=bits, low=st.floats(-50, 0), high=st.floats(0.01, 50), seed=seeds)
def test_inputs_round_to_a_grid_that_has_zero_and_ends_where_it_should(
    bits: int, low: float, high: float, seed: int
) -> None:
    module = RoundedInput(low, high, bits)
    grid = module.grid()
    values = values_of((3, 40), seed, scale=high - low)

    rounded = module(values).detach()

    assert module(torch.zeros(1)).item() == 0.0, "padding and what an activation cut off stay zero"
    assert len(rounded.unique()) <= 1 << bits
    assert 0 <= grid.zero <= grid.top
    np.testing.assert_array_equal(grid.rounded(values.numpy()), rounded.numpy())
    inside = (values >= grid.limits[0]) & (values <= grid.limits[1])
    assert bool(((rounded - values).abs() <= grid.scale / 2 * 1.001 + 1e-6)[inside].all())


def test_the_gradients_are_those_of_learned_step_size_quantization() -> None:
    values = torch.tensor([[0.26, -0.14, 5.0, -5.0]])
    weight = Weight("w", "layer", (1, 4), "float32", "linear", (0, 1))
    module = RoundedWeight(Dense(values), weight, Grid.of("symmetric", 3), per_channel=True)
    with torch.no_grad():
        module.log_step.fill_(math.log(0.1))
    upstream = torch.tensor([[1.0, 10.0, 100.0, 1000.0]])

    (module() * upstream).sum().backward()

    source = module.source
    assert isinstance(source, Dense)
    assert source.values.grad is not None
    assert module.log_step.grad is not None
    assert source.values.grad.tolist() == [[1.0, 10.0, 0.0, 0.0]], "straight through inside, nothing beyond"
    by_step = (3 - 2.6) * 1 + (-1 + 1.4) * 10 + 3 * 100 - 4 * 1000
    balance = 1 / math.sqrt(4 * 3)
    assert module.log_step.grad.item() == pytest.approx(0.1 * by_step * balance, rel=1e-5)


def test_the_offset_of_an_input_learns_from_what_lies_beyond_the_grid() -> None:
    module = RoundedInput(-1.0, 2.0, 4)
    values = torch.tensor([[0.5, 9.0, -9.0, 9.0]], requires_grad=True)
    step, zero = module.grid().scale, module.grid().zero

    module(values).sum().backward()

    assert values.grad is not None
    assert module.share.grad is not None
    assert module.log_step.grad is not None
    assert values.grad.tolist() == [[1.0, 0.0, 0.0, 0.0]]
    balance = 1 / math.sqrt(4 * 15)
    assert module.share.grad.item() == pytest.approx(15 * -3 * step * balance, rel=1e-5)
    inside = round(0.5 / step) - 0.5 / step
    assert module.log_step.grad.item() == pytest.approx(step * (inside + 15 - 3 * zero + 15) * balance, rel=1e-4)


def test_what_is_never_negative_keeps_its_zero_at_the_end_of_the_grid() -> None:
    module = RoundedInput(0.0, 3.0, 4)

    assert module.grid().zero == 0
    assert not module.share.requires_grad


@pytest.mark.parametrize("factor", [0.2, 6.0])
def test_steps_learn_to_err_less(factor: float) -> None:
    """From a range far too narrow, or too wide, the step alone finds back to about the least error."""
    module = RoundedInput(0.0, 1.0, 3)
    values = values_of((64, 64)).relu()
    least = RoundedInput(*range_of_least_error(values.numpy().ravel(), 0.0, float(values.max()), 3), 3)
    with torch.no_grad():
        module.log_step.copy_(least.log_step + math.log(factor))
    optimizer = torch.optim.Adam(module.parameters(), 0.02)

    def error(rounding: nn.Module) -> torch.Tensor:
        return (rounding(values) - values).square().mean()

    for _ in range(300):
        optimizer.zero_grad()
        error(module).backward()
        optimizer.step()

    assert error(module).item() < 1.1 * error(least).item()


def test_zeros_that_were_pruned_stay_and_others_learn() -> None:
    values = values_of((6, 20))
    values[:, ::2] = 0.0
    module = RoundedWeight(Masked(values), LINEAR, Grid.of("symmetric", 4), per_channel=True)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)

    (module() - 1.0).square().sum().backward()
    optimizer.step()

    assert not module()[:, ::2].any()
    assert not module.form().restored()[:, ::2].any()
    assert not torch.equal(module.source().detach(), values)


@given(bits=bits, seed=seeds)
def test_first_steps_err_no_more_than_those_over_the_whole_range(bits: int, seed: int) -> None:
    rows = np.random.default_rng(seed).standard_t(3, (4, 200)).astype(np.float32)
    grid = Grid.of("symmetric", bits)
    low, high = grid.limits

    def error(step: np.ndarray) -> np.ndarray:
        return np.square(np.clip(np.rint(rows / step[:, None]), low, high) * step[:, None] - rows).sum(axis=1)

    whole = np.maximum(rows.max(axis=1) / high, rows.min(axis=1) / low)
    assert np.all(error(step_of_least_error(rows, grid.limits)) <= error(whole) * 1.0001)


def test_a_row_of_zeros_and_a_value_that_never_comes_have_a_step() -> None:
    assert step_of_least_error(np.zeros((2, 5), np.float32), (-8, 7)).tolist() == [1.0, 1.0]
    watched = Watched(0)
    watched(torch.zeros(2, 3))
    module = RoundedInput(*watched.range(8), 8)
    assert module(torch.tensor([[0.0, 0.5]])).isfinite().all()
