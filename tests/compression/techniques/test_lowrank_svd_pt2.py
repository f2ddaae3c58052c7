"""Two layers for one in exported programs: the same outputs as the product of the two, whatever operator reads it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

from tests import trained
from tests.compression.judging import accuracy
from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.factorization.truncation import Decomposition
from workers.compression.families.torch.pt2 import open_model
from workers.compression.families.torch.pt2_factored import factor, factorable
from workers.compression.families.torch.pt2_model import Pt2Model
from workers.compression.specs.steps.lowrank import SvdLowrank
from workers.compression.techniques.lowrank.svd.torch import factor_program

Digits = Callable[..., Dataset]


class _Product(nn.Module):
    """``x @ w`` of a weight stored as (inputs, outputs), on rows in any number of axes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(24, 16))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.relu(values @ self.weight)


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(24, 16), (3, 24)),
    "rows in two axes": (nn.Linear(24, 16, bias=False), (3, 5, 24)),
    "product": (_Product(), (3, 5, 24)),
    "conv1d": (nn.Conv1d(6, 8, 3, stride=2, padding=1), (3, 6, 9)),
    "conv2d": (nn.Conv2d(6, 8, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1)), (3, 6, 9, 11)),
    "padding that is a word": (nn.Conv2d(6, 8, 3, padding="same", bias=False), (3, 6, 9, 11)),
}


def exported(layer: nn.Module, shape: tuple[int, ...]) -> ExportedProgram:
    batch = {0: torch.export.Dim("batch")}
    return torch.export.export(nn.Sequential(layer), (torch.randn(shape),), dynamic_shapes=(batch,))


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_two_layers_compute_what_one_of_their_product_does(kind: str, decomposed: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer, shape = LAYERS[kind]
    program = exported(layer, shape)
    model = Pt2Model(program.run_decompositions() if decomposed else program, 0)
    (name,) = factorable(model.program)
    (weight,) = (found for found in model.weights() if found.name == name)
    factors = Decomposition(model.matrix(weight), None).truncated(4)
    feeds = {model.inputs[0].name: np.random.default_rng(1).normal(size=(2, *shape[1:])).astype(np.float32)}

    with model.varied([(weight, factors.product())]) as run:
        (whole,) = run(feeds)
    factor(model.program, {name: factors})
    model.changed()
    model.save(tmp_path / "made.pt2")
    opened = open_model(tmp_path / "made.pt2", Context(scratch=tmp_path))

    np.testing.assert_allclose(opened.run(feeds)[0], whole, atol=1e-4)
    stock = torch.export.load(tmp_path / "made.pt2").module()
    made = stock(torch.from_numpy(next(iter(feeds.values())))).detach().numpy()
    np.testing.assert_allclose(made, whole, atol=1e-4)


def test_weights_that_others_read_or_that_are_tied_are_left_alone() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(40, 24)
            self.first = nn.Linear(24, 24)
            self.second = nn.Linear(24, 24)
            self.second.weight = self.first.weight
            self.grouped = nn.Conv1d(24, 24, 1, groups=2)
            self.last = nn.Linear(24, 40, bias=False)
            self.last.weight = self.table.weight

        def forward(self, words: torch.Tensor) -> torch.Tensor:
            values = self.second(self.first(self.table(words)))
            return self.last(self.grouped(values.transpose(1, 2)).transpose(1, 2))

    program = torch.export.export(Tied(), (torch.zeros(2, 3, dtype=torch.long),))
    assert factorable(program) == frozenset()


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_half_the_parameters_go_and_the_network_still_knows_its_digits(
    kind: str, digits: Digits, tmp_path: Path
) -> None:
    rows, path = digits(kind), trained.write_pt2(kind, tmp_path / "network.pt2")
    context = Context(scratch=tmp_path, calibration=rows)
    before, made = (open_model(path, context) for _ in range(2))
    factor_program(made, SvdLowrank(round_to=2), context)

    assert sum(weight.size for weight in made.weights()) <= 0.55 * sum(weight.size for weight in before.weights())
    assert accuracy(made, rows) > accuracy(before, rows) - 0.02
    names = {layer.name for layer in before.stored_layers()}
    assert names <= {layer.name for layer in made.stored_layers()}


def test_both_layers_of_a_replaced_one_can_learn(digits: Digits, tmp_path: Path) -> None:
    context = Context(scratch=tmp_path, calibration=digits("mlp"))
    made = open_model(trained.write_pt2("mlp", tmp_path / "network.pt2"), context)
    factor_program(made, SvdLowrank(round_to=2), context)
    learning = set(made.trainable().names)
    assert {weight.name for weight in made.weights()} <= learning
