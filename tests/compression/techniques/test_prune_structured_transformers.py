"""Hugging Face models with fewer neurons in every layer alike."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.models.bert.modeling_bert import BertForSequenceClassification

from tests.compression.families.torch.small_transformers import SMALL, write_small
from tests.e2e import tiny_bert
from workers.compression.context import Context
from workers.compression.data import Dataset, open_dataset
from workers.compression.families.torch import huggingface
from workers.compression.families.torch.architectures import classifier_of
from workers.compression.families.torch.transformer_model import TransformerModel
from workers.compression.registry import handler_for
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import DatasetFile
from workers.compression.specs.steps.prune_structured import StructuredPrune
from workers.compression.specs.steps.quantize import DynamicQuantize
from workers.compression.techniques.prune.structured.torch import prune_network


def token_rows(folder: Path) -> Dataset:
    ids = np.random.default_rng(0).integers(3, SMALL["vocab_size"], (16, 12))
    masks = {"attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    np.savez(folder / "tokens.npz", input_ids=ids, **masks)
    return open_dataset(DatasetFile(path=str(folder / "tokens.npz"), format=DatasetFormat.NPZ))


def small(model_type: str, folder: Path) -> TransformerModel:
    path = write_small(classifier_of(model_type), folder / "upload.zip")
    return huggingface.open_model(path, Context(scratch=folder))


def pruned(model: TransformerModel, rows: Dataset, folder: Path, **fields: object) -> TransformerModel:
    context = Context(scratch=folder, calibration=rows)
    made = prune_network(model, StructuredPrune.model_validate(fields), context)
    assert isinstance(made, TransformerModel)
    return made


def test_stock_transformers_opens_a_narrower_bert_that_still_reads_digits(tmp_path: Path) -> None:
    model = huggingface.open_model(tiny_bert.write_directory(tmp_path), Context(scratch=tmp_path))
    lines = DatasetFile(path=str(tiny_bert.write_lines(tmp_path)), format=DatasetFormat.JSONL)
    _, images, _, _ = tiny_bert.digits_split()
    ids = tiny_bert.token_ids(images[:20])
    feeds = {name: np.ones_like(ids) for name in ("input_ids", "attention_mask")} | {
        "input_ids": ids.numpy(),
        "token_type_ids": np.zeros_like(ids),
    }
    before = model.macs(feeds)

    made = pruned(model, open_dataset(lines), tmp_path, sparsity=0.5)

    made.save(tmp_path / "narrower.zip")
    with zipfile.ZipFile(tmp_path / "narrower.zip") as archive:
        archive.extractall(tmp_path / "narrower")
    stock = BertForSequenceClassification.from_pretrained(tmp_path / "narrower").eval()
    assert stock.config.intermediate_size == 64
    assert tuple(stock.bert.encoder.layer[0].intermediate.dense.weight.shape) == (64, 64)
    with torch.no_grad():
        np.testing.assert_allclose(stock(ids).logits.numpy(), made.run(feeds)[0], rtol=1e-4, atol=1e-5)
    assert made.macs(feeds) < 0.85 * before
    assert tiny_bert.accuracy(stock) > tiny_bert.accuracy(tiny_bert.trained_bert()) - 0.03


@pytest.mark.parametrize("model_type", ["albert", "distilbert", "gpt_neox", "llama", "modernbert", "mpnet"])
def test_as_many_neurons_go_from_every_layer(model_type: str, tmp_path: Path) -> None:
    model, rows = small(model_type, tmp_path), token_rows(tmp_path)
    before = {name: tensor.shape for name, tensor in model.parameters()}

    made = pruned(model, rows, tmp_path, sparsity=0.4, round_to=4)

    made.save(tmp_path / "narrower.zip")
    again = huggingface.open_model(tmp_path / "narrower.zip", Context(scratch=tmp_path))
    after = {name: tensor.shape for name, tensor in again.parameters()}
    changed = {
        (one, other)
        for name, shape in before.items()
        for one, other in zip(shape, after[name], strict=True)
        if one != other
    }
    assert changed <= {(48, 28), (96, 56)}
    assert changed
    assert 28 in {again.entries.get("intermediate_size"), again.entries.get("hidden_dim")}


def test_what_the_configuration_cannot_say_is_refused(tmp_path: Path) -> None:
    rows = token_rows(tmp_path)
    assert StructuredPrune(what=("heads",)).refusal(ModelFormat.HUGGINGFACE)
    assert StructuredPrune(what=("heads",)).refusal(ModelFormat.PT2) is None
    with pytest.raises(UnsupportedTechnique, match="from every layer"):
        pruned(small("bert", tmp_path), rows, tmp_path, include=["*.layer.0.*"])
    with pytest.raises(UnsupportedTechnique, match="gpt2"):
        pruned(small("gpt2", tmp_path), rows, tmp_path)


def test_quantized_weights_are_refused_by_name(tmp_path: Path) -> None:
    context = Context(scratch=tmp_path)
    model = small("bert", tmp_path)
    quantized = handler_for(DynamicQuantize, ModelFormat.HUGGINGFACE)(model, DynamicQuantize(), context)
    assert isinstance(quantized, TransformerModel)

    with pytest.raises(UnsupportedTechnique, match="word_embeddings"):
        pruned(quantized, token_rows(tmp_path), tmp_path)
