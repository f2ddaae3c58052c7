"""Rounding in torch, a few rows at a time, gives exactly what the formulas give on the whole matrix at once."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.compression.families.tensors import rounding
from workers.compression.families.tensors.rounding import round_to_nearest
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.uniform import Grid, quantize
from workers.compression.specs.errors import NumericalFailure

CASES = st.fixed_dictionaries(
    {
        "shape": st.tuples(st.integers(1, 70), st.integers(1, 150)),
        "bits": st.integers(2, 8),
        "scheme": st.sampled_from(["affine", "symmetric", "minmax"]),
        "granularity": st.sampled_from(["tensor", "channel", "group", "block"]),
        "group": st.sampled_from([16, 32, 64]),
        "dtype": st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
        "kind": st.sampled_from(["normal", "constant", "zeros", "grid", "outlier", "tiny", "positive"]),
        "piece": st.sampled_from([1, 64, 1000, 1 << 18]),
        "seed": st.integers(0, 999),
    }
)


def made_up(kind: str, shape: tuple[int, int], seed: int) -> npt.NDArray[np.float64]:
    random = np.random.default_rng(seed)
    normal = random.normal(size=shape) * 0.02
    return {
        "normal": normal,
        "constant": np.full_like(normal, normal[0, 0]),
        "zeros": np.zeros_like(normal),
        "grid": np.round(normal * 200) / 4,
        "outlier": np.where(random.random(shape) < 0.01, 1000 * normal, normal),
        "tiny": normal * 1e-36,
        "positive": np.abs(normal) + 1,
    }[kind]


@settings(deadline=None, max_examples=200)
@given(case=CASES)
def test_integers_and_parameters_are_those_of_the_formulas(case: dict[str, Any]) -> None:
    scheme = case["scheme"]
    tensor = torch.from_numpy(made_up(case["kind"], case["shape"], case["seed"])).to(case["dtype"])
    grid = Grid.of(scheme, case["bits"])
    blocks = Blocks.of_matrix(case["shape"], case["granularity"], case["group"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounding, "PIECE", case["piece"])
        ours = round_to_nearest(tensor, "w", grid, blocks, scheme)

    reference = quantize(tensor.float().numpy(), grid, blocks, scheme)

    assert ours.integers.dtype == reference.integers.dtype
    assert np.array_equal(ours.integers, reference.integers)
    for name, values in vars(reference.parameters).items():
        found = getattr(ours.parameters, name)
        assert (found is None) == (values is None)
        if values is not None:
            assert found.dtype == values.dtype
            assert np.array_equal(found, values)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_named(bad: float) -> None:
    tensor = torch.ones(40, 40, dtype=torch.bfloat16)
    tensor[7, 3] = bad
    with pytest.raises(NumericalFailure, match=r"layers\.0\.weight"):
        round_to_nearest(tensor, "layers.0.weight", Grid.of("affine", 4), Blocks((40, 40), (1, 32)), "affine")
