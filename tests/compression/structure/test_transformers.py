"""Heads and neurons of transformers, as exporters write them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.bert.modeling_bert import BertForSequenceClassification

from tests.compression.structure.shrinking import masked_and_shrunk
from workers.compression.families.model import Feeds
from workers.compression.families.onnx.structure.reading import give_vectors_owners, read_structure

LAYERS, HEADS, NEURONS = 2, 4, 80


def exported(folder: Path, attention: str) -> ModelProto:
    """A BERT whose batch and length vary."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100, hidden_size=48, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=NEURONS,
        attn_implementation=attention,
    )  # fmt: skip
    network = BertForSequenceClassification(config).eval()
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    tokens = torch.ones(2, 11, dtype=torch.long)
    program = torch.onnx.export(
        network, kwargs={"input_ids": tokens, "attention_mask": tokens}, dynamo=True, verbose=False,
        dynamic_shapes={"input_ids": sizes, "attention_mask": sizes},
    )  # fmt: skip
    assert program is not None
    program.save(str(folder / "model.onnx"))
    return onnx.load(folder / "model.onnx")


def tokens(rows: int, length: int) -> Feeds:
    ids = np.random.default_rng(0).integers(1, 100, (rows, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


@pytest.mark.filterwarnings("ignore:# The axis name:UserWarning")
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_heads_and_neurons_go_at_every_batch_and_length(attention: str, tmp_path: Path) -> None:
    proto = exported(tmp_path, attention)
    give_vectors_owners(proto)
    groups = read_structure(proto, tokens(1, 13)).structure.groups()
    feeds = [tokens(3, 29), tokens(1, 7)]

    masked, shrunk, model = masked_and_shrunk(proto, tokens(1, 13), feeds, 0.5, seed=0)

    found = sorted((group.kind, len(group.units)) for group in groups)
    assert found == sorted([("heads", HEADS), ("neurons", NEURONS)] * LAYERS + [("neurons", 48)])
    onnx.checker.check_model(model.proto, full_check=True)
    for one, other in zip(masked, shrunk, strict=True):
        np.testing.assert_allclose(other[0], one[0], rtol=1e-4, atol=1e-6)
