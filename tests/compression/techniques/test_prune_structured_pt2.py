"""Trained networks as exported programs, with some channels, neurons and heads less."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests import trained
from tests.compression.judging import accuracy
from workers.compression.context import Context
from workers.compression.data import Dataset, first_feeds
from workers.compression.families.torch.pt2 import open_model
from workers.compression.families.torch.pt2_model import Pt2Model
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.steps.prune_structured import StructuredPrune
from workers.compression.techniques.prune.structured.torch import prune_network

Digits = Callable[..., Dataset]


class Branches(nn.Module):
    """Batch norms, a residual, two concatenated branches, grouped and depthwise convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.second, self.second_norm = nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.grouped = nn.Conv2d(32, 32, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.joined, self.joined_norm = nn.Conv2d(64, 64, 3, 2, 1), nn.BatchNorm2d(64)
        self.head = nn.Linear(64 * 16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of each row."""
        made = functional.relu(self.first_norm(self.first(images)))
        made = functional.relu(made + self.second_norm(self.second(made)))
        both = torch.cat([functional.relu(self.grouped(made)), functional.relu(self.depthwise(made))], 1)
        return self.head(functional.relu(self.joined_norm(self.joined(both))).flatten(1))


class RowsAsTokens(nn.Module):
    """An encoder over the eight rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.places = nn.Linear(8, 32), nn.Parameter(torch.zeros(8, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 128, dropout=0.0, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of each row."""
        return self.head(self.encoder(self.embedding(images.squeeze(1)) + self.places).mean(1))


@cache
def network(kind: str) -> nn.Module:
    """Trained for some seconds."""
    torch.manual_seed(0)
    return trained.fitted(Branches() if kind == "branches" else RowsAsTokens(), "cnn", epochs=12)


def opened(kind: str, folder: Path) -> Pt2Model:
    path = trained.write_program(network(kind), "cnn", folder / f"{kind}.pt2")
    return open_model(path, Context(scratch=folder))


def pruned(kind: str, digits: Digits, folder: Path, **fields: object) -> Pt2Model:
    context = Context(scratch=folder, calibration=digits("cnn", train=True))
    model = prune_network(opened(kind, folder), StructuredPrune.model_validate(fields), context)
    assert isinstance(model, Pt2Model)
    return model


def parameters(model: Pt2Model) -> int:
    return sum(tensor.elements for _, tensor in model.parameters())


@pytest.mark.parametrize("importance", ["magnitude", "activations", "taylor"])
@pytest.mark.parametrize("kind", ["branches", "encoder"])
def test_the_artifact_is_a_smaller_ordinary_program_that_still_knows_the_digits(
    kind: str, importance: str, digits: Digits, tmp_path: Path
) -> None:
    before, rows = opened(kind, tmp_path), digits("cnn")
    feeds = first_feeds(rows, before.inputs, None, 5)

    after = pruned(kind, digits, tmp_path, macs=0.3, importance=importance)

    after.save(tmp_path / "smaller.pt2")
    stock = torch.export.load(tmp_path / "smaller.pt2").module()
    images = torch.from_numpy(feeds["images"])
    np.testing.assert_allclose(stock(images).detach().numpy(), after.run(feeds)[0], rtol=1e-5, atol=1e-5)
    assert (after.macs(feeds) or 0) <= 0.7 * (before.macs(feeds) or 0)
    assert parameters(after) < 0.8 * parameters(before)
    assert accuracy(before, rows) > 0.9
    assert accuracy(after, rows) > accuracy(before, rows) - 0.03


def test_what_is_added_joined_and_grouped_goes_together(digits: Digits, tmp_path: Path) -> None:
    model = pruned("branches", digits, tmp_path, macs=0.5, round_to=4)

    sizes = {weight.layer: weight.shape for weight in model.weights()}
    assert sizes["first"][0] == sizes["second"][0] == sizes["second"][1] == sizes["depthwise"][0] < 32
    assert sizes["grouped"][0] % 4 == 0
    assert sizes["joined"][1] == sizes["grouped"][0] + sizes["depthwise"][0]
    assert sizes["head"] == (10, 16 * sizes["joined"][0])


def test_heads_alone_go_where_nothing_else_may(digits: Digits, tmp_path: Path) -> None:
    model = pruned("encoder", digits, tmp_path, sparsity=0.5, what=["heads"], scope="layer", round_to=1)

    sizes = {weight.name: weight.shape for weight in model.weights()}
    assert {sizes[f"encoder.layers.{layer}.self_attn.in_proj_weight"] for layer in (0, 1)} == {(48, 32)}
    assert {sizes[f"encoder.layers.{layer}.self_attn.out_proj.weight"] for layer in (0, 1)} == {(32, 16)}
    assert sizes["encoder.layers.0.linear1.weight"] == (128, 32)
    with pytest.raises(UnsupportedTechnique, match="No channels"):
        pruned("encoder", digits, tmp_path, what=["channels"])
