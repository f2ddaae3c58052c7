"""Quantization-aware training of networks over tokens: tables, recurrences, tied weights, attention."""

import importlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.compression.judging import logits
from workers.compression.context import Context
from workers.compression.data import Dataset, open_dataset
from workers.compression.registry import family
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import DatasetFile
from workers.compression.specs.steps.quantize_aware import QatQuantize
from workers.compression.techniques.quantize.qat.training import chosen_weights, train_rounded
from workers.compression.techniques.quantize.targets import fast_weights

WORDS, WIDTH = 100, 32


class Recurrent(nn.Module):
    """A table and an LSTM, whose inputs stay floats, under a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.lstm = nn.Embedding(WORDS, WIDTH), nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.last = nn.Linear(WIDTH, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.last(self.lstm(self.table(tokens))[0][:, -1])


class Tied(nn.Module):
    """One weight is the table that is looked up and the last layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.middle = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self.middle(self.table(tokens)).mean(1), self.table.weight)


class Attention(nn.Module):
    """Three layers read one value; softmax and the sum behind it stay floats."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, WIDTH)
        self.query, self.key, self.value, self.last = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        found = self.table(tokens)
        shares = torch.softmax(self.query(found) @ self.key(found).transpose(1, 2), -1)
        return self.last(nn.functional.gelu(shares @ self.value(found))).mean(1)


WEIGHTS_AND_INPUTS = {Recurrent: (4, 1), Tied: (2, 2), Attention: (5, 2)}
"""Rounded weights and values that enter layers; biases stay floats, also those that ONNX keeps as a matrix."""


def written(network: nn.Module, model_format: ModelFormat, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns of how it traces an LSTM
        return _written(network.eval(), model_format, path)


def _written(network: nn.Module, model_format: ModelFormat, path: Path) -> Path:
    example = (torch.zeros(2, 12, dtype=torch.int64),)
    batch = torch.export.Dim("batch", min=2, max=512)
    if model_format is ModelFormat.PT2:
        torch.export.save(torch.export.export(network, example, dynamic_shapes=({0: batch},)), path)
        return path
    program = torch.onnx.export(
        network, example, dynamo=True, input_names=["input"], dynamic_shapes=({0: batch},), verbose=False
    )
    assert program is not None
    program.save(str(path))
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Dataset:
    """Made-up sentences of two kinds; nothing here claims quality for what is learnt from them."""
    random = np.random.default_rng(0)
    kinds = random.integers(0, 2, 96)
    tokens = random.integers(0, 50, (96, 12)) + 49 * kinds[:, None]
    np.savez(tmp_path / "rows.npz", input=tokens, target=kinds)
    return open_dataset(DatasetFile(path=str(tmp_path / "rows.npz"), format=DatasetFormat.NPZ))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("network", WEIGHTS_AND_INPUTS, ids=lambda kind: kind.__name__.lower())
@pytest.mark.parametrize("model_format", [ModelFormat.ONNX, ModelFormat.PT2])
def test_the_stored_integers_answer_as_the_network_that_was_trained(
    model_format: ModelFormat, network: type[nn.Module], bits: int, rows: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    path = written(network(), model_format, tmp_path / "network")
    context = Context(
        scratch=tmp_path,
        train=rows,
        open_original=lambda: family(model_format).open_model(path, Context(scratch=tmp_path)),
    )
    runtime = "onnx" if model_format is ModelFormat.ONNX else "torch"
    handler = importlib.import_module(f"workers.compression.techniques.quantize.qat.{runtime}")
    spec = QatQuantize(bits=bits, activation_bits=8, max_steps=4, validation=0.0)

    model = handler.prepared(family(model_format).open_model(path, context), context)
    rounded = train_rounded(
        model, chosen_weights(model, spec, context), fast_weights(context.target).grid, spec, context
    )
    handler.convert(model, rounded)
    model.save(tmp_path / "stored")

    rounded.network.eval()
    batches = rows.batches(model.inputs, 64, None)
    with torch.no_grad():
        made = [rounded.network(torch.from_numpy(batch.feeds[model.inputs[0].name])) for batch in batches]
    expected = np.concatenate([outputs[0].numpy() for outputs in made])  # type: ignore[index]  # the body gives a tuple
    found = logits(family(model_format).open_model(tmp_path / "stored", context), rows)
    np.testing.assert_allclose(found, expected, atol=0.01 * float(np.abs(expected).max()))
    weights, inputs = WEIGHTS_AND_INPUTS[network]
    assert len(rounded.weights) == weights
    assert len(rounded.inputs) == inputs
    assert not context.warnings
