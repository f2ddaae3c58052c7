"""Heads and neurons of transformers, as exporters write them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.bert.modeling_bert import BertForSequenceClassification

from tests.compression.structure.shrinking import masked_and_shrunk, masked_and_shrunk_program
from workers.compression.families.model import Feeds
from workers.compression.families.onnx.structure.reading import give_vectors_owners, read_structure
from workers.compression.families.torch.pt2_model import Pt2Model
from workers.compression.families.torch.structure.reading import read_structure as read_program
from workers.compression.structure.units import Group

LAYERS, HEADS, NEURONS = 2, 4, 80


def bert(attention: str) -> BertForSequenceClassification:
    """Two layers of four heads with random weights."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100, hidden_size=48, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=NEURONS,
        attn_implementation=attention,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


def arguments() -> dict[str, Any]:
    """What exporters take: batch and length vary."""
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=512)}
    names = ("input_ids", "attention_mask")
    examples = {name: torch.ones(2, 11, dtype=torch.long) for name in names}
    return {"kwargs": examples, "dynamic_shapes": dict.fromkeys(names, sizes)}


def exported(folder: Path, attention: str) -> ModelProto:
    program = torch.onnx.export(bert(attention), dynamo=True, verbose=False, **arguments())
    assert program is not None
    program.save(str(folder / "model.onnx"))
    return onnx.load(folder / "model.onnx")


class PackedEncoder(torch.nn.Module):
    """torch's own encoder, whose queries, keys and values are made by one weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = torch.nn.TransformerEncoderLayer(16, HEADS, 32, batch_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = torch.nn.Linear(16, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Three numbers a row."""
        return self.head(self.layers(rows).mean(1))


def tokens(rows: int, length: int) -> Feeds:
    ids = np.random.default_rng(0).integers(1, 100, (rows, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def kinds(groups: list[Group]) -> list[tuple[str, int]]:
    return sorted((group.kind, len(group.units)) for group in groups)


@pytest.mark.filterwarnings("ignore:# The axis name:UserWarning")
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_heads_and_neurons_go_at_every_batch_and_length(attention: str, tmp_path: Path) -> None:
    proto = exported(tmp_path, attention)
    give_vectors_owners(proto)
    groups = read_structure(proto, tokens(1, 13)).structure.groups()
    feeds = [tokens(3, 29), tokens(1, 7)]

    masked, shrunk, model = masked_and_shrunk(proto, tokens(1, 13), feeds, 0.5, seed=0)

    assert kinds(groups) == sorted([("heads", HEADS), ("neurons", NEURONS)] * LAYERS + [("neurons", 48)])
    onnx.checker.check_model(model.proto, full_check=True)
    for one, other in zip(masked, shrunk, strict=True):
        np.testing.assert_allclose(other[0], one[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_heads_and_neurons_of_programs_go_at_every_batch_and_length(attention: str, decomposed: bool) -> None:
    program = torch.export.export(bert(attention), (), **arguments())
    program = program.run_decompositions() if decomposed else program
    feeds = [tokens(1, 13), tokens(3, 29), tokens(2, 7)]
    groups = read_program(program, Pt2Model(program, 0).flat(feeds[0])).structure.groups()

    masked, shrunk, _ = masked_and_shrunk_program(program, feeds, 0.5, seed=0)

    assert kinds(groups) == sorted([("heads", HEADS), ("neurons", NEURONS)] * LAYERS + [("neurons", 48)])
    for one, other in zip(masked, shrunk, strict=True):
        np.testing.assert_allclose(other[0], one[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("decomposed", [False, True])
def test_heads_go_from_queries_keys_and_values_in_one_weight(decomposed: bool) -> None:
    sizes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("length")},)
    program = torch.export.export(PackedEncoder().eval(), (torch.randn(2, 11, 16),), dynamic_shapes=sizes)
    program = program.run_decompositions() if decomposed else program
    random = np.random.default_rng(0)
    feeds = [{"rows": random.normal(size=(*shape, 16)).astype(np.float32)} for shape in ((1, 13), (3, 29), (2, 7))]
    groups = read_program(program, Pt2Model(program, 0).flat(feeds[0])).structure.groups()

    masked, shrunk, model = masked_and_shrunk_program(program, feeds, 0.5, seed=0)

    assert kinds(groups) == sorted([("heads", HEADS), ("neurons", 32)] * LAYERS)
    assert {tuple(model.values_of(f"layers.layers.{layer}.self_attn.in_proj_weight").shape) for layer in (0, 1)} == {
        (24, 16)
    }
    for one, other in zip(masked, shrunk, strict=True):
        np.testing.assert_allclose(other[0], one[0], rtol=1e-4, atol=1e-5)
