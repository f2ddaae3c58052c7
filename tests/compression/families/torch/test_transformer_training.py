import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.auto.modeling_auto import AutoModelForSequenceClassification

from tests.compression.families.torch.small_transformers import DEPTH, write_small
from tests.e2e import tiny_bert
from workers.compression.context import Context
from workers.compression.families.torch import huggingface
from workers.compression.families.torch.architectures import ARCHITECTURES, Architecture
from workers.compression.families.torch.transformer_model import TransformerModel
from workers.compression.registry import handler_for
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.quantize import DynamicQuantize, Float16Quantize

SERVED = list(ARCHITECTURES.values())
BODIES = [served for served in SERVED if not served.class_name.endswith("TokenClassification")]
Open = Callable[..., TransformerModel]


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(scratch=tmp_path)


@pytest.fixture
def small(tmp_path: Path, context: Context) -> Open:
    """An opened model of a served class, with fresh weights; ``files`` lie beside them."""

    def make(architecture: Architecture, *, files: dict[str, Any] | None = None, **entries: Any) -> TransformerModel:
        write_small(architecture, tmp_path / "upload.zip", files=files, **entries)
        return huggingface.open_model(tmp_path / "upload.zip", context)

    return make


@pytest.fixture
def digit_reader(tmp_path: Path, context: Context) -> TransformerModel:
    """A BERT trained on digits written as words."""
    return huggingface.open_model(tiny_bert.write_directory(tmp_path), context)


def token_rows(model: TransformerModel, count: int = 2) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(0).integers(3, 90, (count, 7))
    values = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return {port.name: values[port.name] for port in model.inputs}


def tensors(feeds: dict[str, np.ndarray]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(values) for values in feeds.values())


def digit_rows() -> tuple[dict[str, np.ndarray], torch.Tensor]:
    """Training rows, with the labels turned round, so that there is something new to learn."""
    images, _, labels, _ = tiny_bert.digits_split()
    ids = tiny_bert.token_ids(images[:128]).numpy()
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return feeds, 9 - torch.from_numpy(labels[:128])


def train(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], labels: torch.Tensor, steps: int) -> list[float]:
    """Losses of some updates on the same rows."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
    losses = []
    module.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(*inputs)[0], labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    module.eval()
    return losses


def stock(archive: Path, folder: Path) -> tuple[Any, dict[str, Any]]:
    """What stock transformers loads, and what it has to say about names that do not fit."""
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    found: tuple[Any, dict[str, Any]] = AutoModelForSequenceClassification.from_pretrained(
        folder, output_loading_info=True
    )
    return found


@pytest.mark.parametrize("architecture", SERVED, ids=[served.class_name for served in SERVED])
def test_every_served_class_has_layers_taps_and_gradients(architecture: Architecture, small: Open) -> None:
    model = small(architecture)
    trainable, feeds = model.trainable(), token_rows(model)
    substitutes = {name: value.detach() for name, value in trainable.module.named_parameters()}

    assert trainable.tapped is not None
    outputs, states = torch.func.functional_call(trainable.tapped, substitutes, tensors(feeds))
    expected = model.run(feeds)[0]
    np.testing.assert_allclose(outputs[0].numpy(), expected, rtol=1e-5, atol=1e-6)
    assert states.keys() == set(trainable.taps)
    assert {f"hidden.{index}" for index in range(DEPTH + 1)} <= states.keys()

    trainable.module(*tensors(feeds))[0].pow(2).sum().backward()
    without = [name for name, parameter in trainable.module.named_parameters() if parameter.grad is None]
    assert all("pooler" in name for name in without), "hidden states do not pass the pooler"
    grouped = [name for group in trainable.layers for name in group]
    assert sorted(grouped) == sorted(substitutes)
    assert len(grouped) == len(set(grouped))
    assert {name.removeprefix("network.") for name in substitutes} == set(trainable.names.values()) & {
        name for name, _ in model.parameters()
    }


def test_layers_run_from_the_embeddings_to_the_head(small: Open) -> None:
    trainable = small(ARCHITECTURES["bert", "BertForSequenceClassification"]).trainable()
    embeddings, first, second, head = trainable.layers
    assert all(".embeddings." in name for name in embeddings)
    assert all(".layer.0." in name for name in first)
    assert all(".layer.1." in name for name in second)
    assert {name.rpartition(".")[0] for name in head} == {"network.bert.pooler.dense", "network.classifier"}
    assert "network.classifier.weight" in trainable.linear
    assert not any("embeddings" in name for name in trainable.linear)
    assert {"query.0", "key.1", "value.1"} <= set(trainable.taps)


def test_what_was_trained_is_what_stock_transformers_opens(
    digit_reader: TransformerModel, tmp_path: Path, context: Context
) -> None:
    feeds, labels = digit_rows()
    before = digit_reader.run(feeds)[0]
    trainable = digit_reader.trainable()

    losses = train(trainable.module, tensors(feeds), labels, steps=15)
    assert np.array_equal(digit_reader.run(feeds)[0], before), "the model is left alone"
    digit_reader.adopt(trainable)
    digit_reader.save(tmp_path / "made.zip")
    digit_reader.save(tmp_path / "again.zip")

    assert losses[-1] < losses[0] / 2
    assert (tmp_path / "made.zip").read_bytes() == (tmp_path / "again.zip").read_bytes()
    expected = trainable.module(*tensors(feeds))[0].detach()
    found, notes = stock(tmp_path / "made.zip", tmp_path / "made")
    assert not any(notes.values())
    with torch.no_grad():
        torch.testing.assert_close(found.eval()(**{k: torch.from_numpy(v) for k, v in feeds.items()}).logits, expected)
    again = huggingface.open_model(tmp_path / "made.zip", context)
    np.testing.assert_allclose(again.run(feeds)[0], expected.numpy(), rtol=1e-5, atol=1e-5)


def test_training_twice_gives_the_same_values(small: Open) -> None:
    model = small(ARCHITECTURES["bert", "BertForSequenceClassification"])
    feeds, found = token_rows(model, 8), []
    for _ in range(2):
        trainable = model.trainable()
        torch.manual_seed(1)
        train(trainable.module, tensors(feeds), torch.arange(8) % 2, steps=3)
        found.append(trainable.module.state_dict())
    assert all(torch.equal(first, found[1][name]) for name, first in found[0].items())


def test_dropout_is_on_in_training_only(small: Open) -> None:
    model = small(ARCHITECTURES["bert", "BertForSequenceClassification"])
    module, inputs = model.trainable().module, tensors(token_rows(model))
    assert torch.equal(module(*inputs)[0], module(*inputs)[0])
    module.train()
    assert not torch.equal(module(*inputs)[0], module(*inputs)[0])


def test_tied_tables_stay_tied(small: Open, tmp_path: Path, context: Context) -> None:
    model = small(ARCHITECTURES["gpt2", "GPT2LMHeadModel"])
    trainable = model.trainable()
    table = "network.transformer.wte.weight"
    assert trainable.layers[-1] == (table,), "it makes the output"
    with torch.no_grad():
        trainable.module.get_parameter(table).mul_(2.0)
    model.adopt(trainable)
    model.save(tmp_path / "made.zip")

    again = huggingface.open_model(tmp_path / "made.zip", context)
    feeds = token_rows(again)
    assert "lm_head.weight" not in dict(again.parameters())
    expected = trainable.module(*tensors(feeds))[0].detach().numpy()
    np.testing.assert_allclose(again.run(feeds)[0], expected, rtol=1e-4, atol=1e-5)


def test_half_precision_trains_in_float32_and_is_stored_as_it_was(
    digit_reader: TransformerModel, tmp_path: Path, context: Context
) -> None:
    handler_for(Float16Quantize, ModelFormat.HUGGINGFACE)(digit_reader, Float16Quantize(), context)
    digit_reader.save(tmp_path / "half.zip")
    model = huggingface.open_model(tmp_path / "half.zip", context)
    feeds, labels = digit_rows()
    trainable = model.trainable()
    assert {parameter.dtype for parameter in trainable.module.parameters()} == {torch.float32}
    types = {name: values.dtype for name, values in model.tensors()}

    train(trainable.module, tensors(feeds), labels, steps=3)
    model.adopt(trainable)

    assert {name: values.dtype for name, values in model.tensors()} == types
    assert np.dtype(np.float16) in types.values()
    expected = trainable.module(*tensors(feeds))[0].detach().numpy()
    np.testing.assert_allclose(model.run(feeds)[0], expected, atol=0.1)


def test_integer_weights_are_refused(digit_reader: TransformerModel, context: Context) -> None:
    handler_for(DynamicQuantize, ModelFormat.HUGGINGFACE)(digit_reader, DynamicQuantize(), context)
    with pytest.raises(UnsupportedTechnique, match="stored as integers"):
        digit_reader.trainable()
    with pytest.raises(UnsupportedTechnique, match="stored as integers"):
        digit_reader.with_head(("a", "b"), seed=0)


@pytest.mark.parametrize("architecture", BODIES, ids=[served.class_name for served in BODIES])
@pytest.mark.parametrize("classes", [("red", "kernel", "blue"), ("price",)], ids=["classes", "value"])
def test_a_fresh_classifier_opens_in_stock_transformers(
    architecture: Architecture, classes: tuple[str, ...], small: Open, tmp_path: Path, context: Context
) -> None:
    model, state = small(architecture), torch.get_rng_state()
    made = model.with_head(classes, seed=3)
    assert torch.equal(torch.get_rng_state(), state), "torch's own random state is left alone"
    made.save(tmp_path / "made.zip")

    found, notes = stock(tmp_path / "made.zip", tmp_path / "made")

    assert not any(notes.values())
    assert found.config.id2label == dict(enumerate(classes))
    assert found.config.problem_type == ("regression" if len(classes) == 1 else "single_label_classification")
    again = huggingface.open_model(tmp_path / "made.zip", context)
    feeds = token_rows(again)
    with torch.no_grad():
        logits = found.eval()(**{name: torch.from_numpy(values) for name, values in feeds.items()}).logits
    assert logits.shape == (2, len(classes))
    assert again.outputs[0].shape == ("batch", len(classes))
    np.testing.assert_allclose(again.run(feeds)[0], logits.numpy(), rtol=1e-5, atol=1e-6)


def loaded(model: TransformerModel) -> dict[str, torch.Tensor]:
    return {name: tensor.load() for name, tensor in model.parameters()}


def test_the_body_stays_and_the_seed_makes_the_head(digit_reader: TransformerModel) -> None:
    body = loaded(digit_reader)
    first, same, other = (loaded(digit_reader.with_head(("a", "b"), seed)) for seed in (1, 1, 2))
    kept = {name for name, tensor in first.items() if torch.equal(tensor, body[name])}
    assert first.keys() - kept == {"classifier.weight", "classifier.bias"}
    assert torch.equal(first["classifier.weight"], same["classifier.weight"])
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])
    assert 0.1 < first["classifier.weight"].std() < 0.3, "as the configuration's initializer_range of 0.2 asks for"


def test_a_fresh_head_learns(digit_reader: TransformerModel) -> None:
    feeds, labels = digit_rows()
    trainable = digit_reader.with_head(("a", "b", "c"), seed=0).trainable()
    losses = train(trainable.module, tensors(feeds), labels % 3, steps=15)
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 2),
        ({"tokenizer.json": {"padding": {"pad_id": 5}}}, 5),
        (
            {
                "tokenizer.json": {"added_tokens": [{"content": "<pad>", "id": 7}]},
                "tokenizer_config.json": {"pad_token": "<pad>"},
            },
            7,
        ),
    ],
    ids=["end", "tokenizer", "named"],
)
def test_decoders_learn_what_padding_looks_like(files: dict[str, Any], expected: int, small: Open) -> None:
    model = small(ARCHITECTURES["gpt2", "GPT2Model"], files=files, pad_token_id=None)
    made = model.with_head(("a", "b"), seed=0)
    assert made.entries["pad_token_id"] == expected
    assert made.run(token_rows(made, 3))[0].shape == (3, 2)
