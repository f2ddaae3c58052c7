"""Methods of pruning on networks that learnt real digits."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn.utils import prune

from tests import trained
from tests.compression.judging import accuracy
from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.registry import handler_for
from workers.compression.specs.errors import DatasetMismatch, NumericalFailure
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.prune_weights import (
    FisherPrune,
    MagnitudePrune,
    SparseGptPrune,
    TaylorPrune,
    WandaPrune,
    WeightPrune,
)

Open = Callable[[str], OnnxModel]
Digits = Callable[..., Dataset]
CALIBRATED = (WandaPrune, SparseGptPrune, TaylorPrune, FisherPrune)


@pytest.fixture
def pruned(open_onnx: Open, digits: Digits, tmp_path: Path) -> Callable[[str, WeightPrune], OnnxModel]:
    """A trained network after a step that saw its training images."""

    def make(kind: str, spec: WeightPrune) -> OnnxModel:
        context = Context(scratch=tmp_path, calibration=digits(kind, train=True))
        made = handler_for(type(spec), ModelFormat.ONNX)(open_onnx(kind), spec, context)
        assert isinstance(made, OnnxModel)
        return made

    return make


def zeros_of(model: OnnxModel) -> float:
    """The share of all weights."""
    zeros = sum(int((model.matrix(weight) == 0).sum()) for weight in model.weights())
    return zeros / sum(weight.size for weight in model.weights())


def test_magnitude_takes_what_torch_takes(pruned: Callable[[str, WeightPrune], OnnxModel]) -> None:
    made = pruned("mlp", MagnitudePrune(sparsity=0.6, scope="layer"))

    for weight in made.weights():
        layer = torch.nn.Linear(1, 1)
        layer.weight = torch.nn.Parameter(trained.trained("mlp").get_parameter(weight.name).detach().clone())
        prune.l1_unstructured(layer, "weight", amount=0.6)
        np.testing.assert_array_equal(made.matrix(weight), layer.weight.detach().numpy())


@pytest.mark.parametrize(
    "spec",
    [
        WandaPrune(sparsity=0.8, fit=True),
        SparseGptPrune(sparsity=0.8),
        SparseGptPrune(sparsity=0.8, fit=False),
        MagnitudePrune(sparsity=0.8, allocation="erk"),
        MagnitudePrune(sparsity=0.8, allocation="sensitivity"),
    ],
    ids=lambda spec: f"{spec.method}-{spec.allocation}-{getattr(spec, 'fit', '')}",
)
def test_data_and_allocation_keep_more_than_magnitude_layer_by_layer(
    spec: WeightPrune, pruned: Callable[[str, WeightPrune], OnnxModel], digits: Digits
) -> None:
    made, rows = pruned("mlp", spec), digits("mlp")

    assert accuracy(made, rows) > accuracy(pruned("mlp", MagnitudePrune(sparsity=0.8, scope="layer")), rows) + 0.15
    assert zeros_of(made) == pytest.approx(0.8, abs=1e-4)


def test_gradients_keep_more_than_magnitude_over_all_layers(
    pruned: Callable[[str, WeightPrune], OnnxModel], digits: Digits
) -> None:
    by_magnitude, by_fisher, by_taylor = (
        accuracy(pruned("cnn", spec), digits("cnn"))
        for spec in (
            MagnitudePrune(sparsity=0.8),
            FisherPrune(sparsity=0.8, samples=128),
            TaylorPrune(sparsity=0.8, samples=128),
        )
    )

    assert by_fisher > by_magnitude + 0.15
    assert by_taylor > by_magnitude + 0.15


@pytest.mark.parametrize("step", [MagnitudePrune, *CALIBRATED])
@pytest.mark.parametrize("pattern", ["2:4", "4x1"])
def test_every_method_keeps_to_patterns(
    step: type[WeightPrune], pattern: str, pruned: Callable[[str, WeightPrune], OnnxModel]
) -> None:
    made = pruned("mlp", step(pattern=pattern, **({"samples": 32} if step in CALIBRATED else {})))

    for weight in made.weights():
        zero = made.matrix(weight) == 0
        if pattern == "2:4":
            assert (zero.reshape(len(zero), -1, 4).sum(axis=2) >= 2).all()
        else:
            whole = zero[: len(zero) // 4 * 4].reshape(-1, 4, zero.shape[1])
            assert (whole.all(axis=1) | ~whole.any(axis=1)).mean() > 0.99
    assert zeros_of(made) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("step", [MagnitudePrune, *CALIBRATED])
def test_weights_that_are_not_finite_are_refused_by_name(
    step: type[WeightPrune], open_onnx: Open, digits: Digits, tmp_path: Path
) -> None:
    model = open_onnx("mlp")
    first = model.weights()[0]
    matrix = np.array(model.matrix(first))
    matrix[0, 0] = np.nan
    model.replace([(first, matrix)])

    with pytest.raises(NumericalFailure, match=first.name):
        handler_for(step, ModelFormat.ONNX)(model, step(), Context(scratch=tmp_path, calibration=digits("mlp")))


@pytest.mark.parametrize("step", CALIBRATED)
def test_a_method_that_looks_at_data_says_when_there_is_none(
    step: type[WeightPrune], open_onnx: Open, tmp_path: Path
) -> None:
    with pytest.raises(DatasetMismatch, match="calibration"):
        handler_for(step, ModelFormat.ONNX)(open_onnx("mlp"), step(), Context(scratch=tmp_path))


@pytest.mark.parametrize(
    "fields",
    [
        {"pattern": "2:4", "scope": "global"},
        {"pattern": "2:4", "sparsity": 0.6},
        {"pattern": "2:4", "max_drop": 0.01},
        {"pattern": "2:4", "allocation": "erk"},
        {"allocation": "erk", "scope": "global"},
        {"allocation": "erk", "max_drop": 0.01},
        {"pattern": "4:2"},
    ],
)
def test_what_contradicts_itself_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MagnitudePrune.model_validate(fields)


def test_a_pattern_brings_its_sparsity_and_scope() -> None:
    assert MagnitudePrune(pattern="1:4").sparsity == 0.75
    assert MagnitudePrune(pattern="2:4", sparsity=0.5).scope == "layer"
    assert MagnitudePrune(pattern="4x1").scope == "global"
    assert MagnitudePrune(allocation="erk").scope == "layer"
    assert MagnitudePrune(allocation="sensitivity").required() == ("calibration",)
    assert FisherPrune(loss="labels").required() == ("calibration", "labels")
