"""Quantization-aware training: what is stored answers as what was trained, on the grids that were asked for."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests import trained
from tests.compression.judging import accuracy, logits
from tests.compression.training.attempts import attempt
from workers.compression.context import Context
from workers.compression.data import Dataset, open_dataset
from workers.compression.families.model import Array, Model
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.families.weights import CompressibleModel
from workers.compression.registry import family
from workers.compression.specs.errors import DatasetMismatch, NumericalFailure, UnsupportedTechnique
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import Data, DatasetFile, ModelFile
from workers.compression.specs.steps.prune_weights import MagnitudePrune
from workers.compression.specs.steps.quantize_aware import QatQuantize
from workers.compression.techniques.quantize.qat import onnx as qat_onnx
from workers.compression.techniques.quantize.qat import torch as qat_torch
from workers.compression.techniques.quantize.qat.training import Rounded, chosen_weights, train_rounded
from workers.compression.techniques.quantize.targets import fast_weights

FORMATS = (ModelFormat.ONNX, ModelFormat.PT2)
HANDLERS: Mapping[ModelFormat, ModuleType] = {ModelFormat.ONNX: qat_onnx, ModelFormat.PT2: qat_torch}
QUICK: dict[str, Any] = {"max_steps": 6, "validation": 0.0}
Files = Callable[[ModelFormat], Path]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The trained convolutional network, by format."""
    folder = tmp_path_factory.mktemp("networks")
    paths = {
        ModelFormat.ONNX: trained.write_onnx("cnn", folder / "cnn.onnx"),
        ModelFormat.PT2: trained.write_pt2("cnn", folder / "cnn.pt2"),
    }
    return paths.__getitem__


def opened(path: Path, model_format: ModelFormat, folder: Path) -> Any:
    return family(model_format).open_model(path, Context(scratch=folder))


def reopened(model: Model, folder: Path) -> Any:
    model.save(folder / "stored")
    return opened(folder / "stored", model.format, folder)


def context_for(path: Path, model_format: ModelFormat, train: Dataset, folder: Path) -> Context:
    return Context(scratch=folder, train=train, open_original=lambda: opened(path, model_format, folder))


def both(
    path: Path, model_format: ModelFormat, spec: QatQuantize, context: Context
) -> tuple[CompressibleModel, Rounded]:
    """The stored model, and what the training came to before it was stored."""
    handler = HANDLERS[model_format]
    model = handler.prepared(opened(path, model_format, context.scratch), context)
    grid = fast_weights(context.target).grid
    rounded = train_rounded(model, chosen_weights(model, spec, context), grid, spec, context)
    handler.convert(model, rounded)
    return model, rounded


@torch.no_grad()
def answers(rounded: Rounded, model: Model, rows: Dataset) -> Array:
    """What the trained network makes of all rows, rounding as in training."""
    rounded.network.eval()
    (port,) = model.inputs
    batches = rows.batches(model.inputs, 64, None)
    made = [rounded.network(torch.from_numpy(batch.feeds[port.name])) for batch in batches]
    return np.concatenate([outputs[0].numpy() for outputs in made])  # type: ignore[index]  # the body gives a tuple


@pytest.mark.parametrize("activation_bits", [None, 4, 8])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("model_format", FORMATS)
def test_the_stored_integers_answer_as_the_network_that_was_trained(
    model_format: ModelFormat,
    bits: int,
    activation_bits: int | None,
    files: Files,
    digits: Callable[..., Dataset],
    tmp_path: Path,
) -> None:
    """Sums of floats in another order move a value over the middle between two integers now and then; and where
    integer kernels compute, a bias is a multiple of the product of two steps. Either moves an output by a few steps of
    one activation, in few rows, and no answer.
    """
    path, rows = files(model_format), digits("cnn")
    spec = QatQuantize(bits=bits, activation_bits=activation_bits, **QUICK)
    context = context_for(path, model_format, digits("cnn", train=True), tmp_path)

    model, rounded = both(path, model_format, spec, context)

    expected, found = answers(rounded, model, rows), logits(reopened(model, tmp_path), rows)
    off = np.abs(found - expected).max(axis=1) / np.abs(expected).max()
    exact_sums = model_format is ModelFormat.ONNX and bits == activation_bits == 8
    assert off.max() < (1e-5 if activation_bits is None else 0.01)
    assert exact_sums or np.mean(off > 1e-5) < 0.1
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))
    assert {form.grid.bits for _, form in rounded.weights.values()} <= {bits, bits - 1}
    assert len(rounded.weights) == 4
    assert {grid.bits for grid in rounded.inputs.values()} == ({activation_bits} if activation_bits else set())


@pytest.mark.parametrize("model_format", FORMATS)
def test_four_bits_take_an_eighth_of_the_bytes_and_training_keeps_the_accuracy(
    model_format: ModelFormat, files: Files, digits: Callable[..., Dataset], tmp_path: Path
) -> None:
    path, rows = files(model_format), digits("cnn")
    spec = QatQuantize(bits=4, activation_bits=4, epochs=2)
    context = context_for(path, model_format, digits("cnn", train=True), tmp_path)

    model = HANDLERS[model_format].train_quantized(opened(path, model_format, tmp_path), spec, context)

    stored = reopened(model, tmp_path)
    weights = sum(layer.bytes for layer in stored.stored_layers())
    original = opened(path, model_format, tmp_path)
    assert weights < 0.15 * sum(layer.bytes for layer in original.stored_layers())
    assert accuracy(stored, rows) > accuracy(original, rows) - 0.015


def test_eight_bit_layers_run_on_integer_kernels(files: Files, digits: Callable[..., Dataset], tmp_path: Path) -> None:
    path = files(ModelFormat.ONNX)
    context = context_for(path, ModelFormat.ONNX, digits("cnn", train=True), tmp_path)
    qat_onnx.train_quantized(opened(path, ModelFormat.ONNX, tmp_path), QatQuantize(**QUICK), context).save(
        tmp_path / "small.onnx"
    )
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 4

    onnxruntime.InferenceSession(tmp_path / "small.onnx", options)

    operators = [node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node]
    assert operators.count("QLinearConv") == 3
    assert operators.count("QGemm") == 1
    assert not {"Conv", "FusedConv", "Gemm"} & set(operators)


@pytest.mark.parametrize("model_format", FORMATS)
def test_excluded_layers_and_their_inputs_stay_floats(
    model_format: ModelFormat, files: Files, digits: Callable[..., Dataset], tmp_path: Path
) -> None:
    path = files(model_format)
    last = opened(path, model_format, tmp_path).weights()[-1]
    spec = QatQuantize(bits=4, activation_bits=4, exclude=(last.layer,), **QUICK)
    context = context_for(path, model_format, digits("cnn", train=True), tmp_path)

    model, rounded = both(path, model_format, spec, context)

    assert last.name not in rounded.weights
    assert len(rounded.weights) == len(rounded.inputs) == 3
    assert [weight.name for weight in reopened(model, tmp_path).weights()] == [last.name]


@pytest.mark.parametrize("model_format", FORMATS)
def test_rows_without_labels_are_taught_by_the_original(
    model_format: ModelFormat, files: Files, tmp_path: Path
) -> None:
    path = files(model_format)
    np.savez(tmp_path / "rows.npz", input=trained.digits_split()[0].reshape(-1, 1, 8, 8))
    rows = open_dataset(DatasetFile(path=str(tmp_path / "rows.npz"), format=DatasetFormat.NPZ))
    context = context_for(path, model_format, rows, tmp_path)
    spec = QatQuantize(bits=3, activation_bits=4, epochs=1)

    model = HANDLERS[model_format].train_quantized(opened(path, model_format, tmp_path), spec, context)

    curve = next(curve for curve in context.curves if "validation" in curve.name and "loss" in curve.name)
    losses = [value for _, value in curve.points]
    assert losses[-1] < 0.8 * losses[0]
    assert accuracy(model, open_dataset(written_test_rows(tmp_path))) > 0.95

    orphan = Context(scratch=tmp_path, train=rows)
    with pytest.raises(DatasetMismatch, match="neither labels nor an original"):
        HANDLERS[model_format].train_quantized(opened(path, model_format, tmp_path), spec, orphan)


def written_test_rows(folder: Path) -> DatasetFile:
    return DatasetFile(path=str(trained.write_npz("cnn", folder / "test.npz")), format=DatasetFormat.NPZ)


@pytest.mark.parametrize("model_format", FORMATS)
def test_a_training_that_was_cut_off_ends_with_the_same_bytes(
    model_format: ModelFormat, files: Files, tmp_path: Path
) -> None:
    model = ModelFile(path=str(files(model_format)), format=model_format)
    train = DatasetFile(
        path=str(trained.write_npz("cnn", tmp_path / "train.npz", train=True)), format=DatasetFormat.NPZ
    )
    recipe, data = (QatQuantize(bits=4, activation_bits=4, max_steps=8),), Data(train=train)
    whole = attempt(tmp_path / "whole", model, recipe, data, checkpoint_seconds=1e-9)
    found = whole.checkpoints

    for number, cut in enumerate((found[1], found[-1])):
        again = attempt(tmp_path / str(number), model, recipe, data, checkpoints=(cut,))
        assert f"going on after update {cut.update}" in again.logs
        assert again.sha256 == whole.sha256


@pytest.mark.parametrize("model_format", FORMATS)
def test_what_was_pruned_before_stays_zero(model_format: ModelFormat, files: Files, tmp_path: Path) -> None:
    model = ModelFile(path=str(files(model_format)), format=model_format)
    train = DatasetFile(
        path=str(trained.write_npz("cnn", tmp_path / "train.npz", train=True)), format=DatasetFormat.NPZ
    )
    recipe = (MagnitudePrune(sparsity=0.7), QatQuantize(bits=8, activation_bits=None, max_steps=8, validation=0.0))

    made = attempt(tmp_path / "a", model, recipe, Data(train=train))

    layers = list(made.open().stored_layers())
    total, kept = sum(layer.parameters for layer in layers), sum(layer.nonzero for layer in layers)
    assert kept < 0.32 * total


def test_weights_that_are_not_finite_are_refused_by_name(
    files: Files, digits: Callable[..., Dataset], tmp_path: Path
) -> None:
    path = files(ModelFormat.ONNX)
    model = opened(path, ModelFormat.ONNX, tmp_path)
    weight = model.weights()[1]
    values = np.array(model.matrix(weight))
    values[0, 0] = math.nan
    model.replace([(weight, values)])
    context = context_for(path, ModelFormat.ONNX, digits("cnn", train=True), tmp_path)

    with pytest.raises(NumericalFailure, match=weight.name):
        qat_onnx.train_quantized(model, QatQuantize(**QUICK), context)


def test_globs_that_leave_nothing_are_refused(files: Files, digits: Callable[..., Dataset], tmp_path: Path) -> None:
    path = files(ModelFormat.ONNX)
    context = context_for(path, ModelFormat.ONNX, digits("cnn", train=True), tmp_path)

    with pytest.raises(UnsupportedTechnique, match="No selected layer"):
        qat_onnx.train_quantized(
            opened(path, ModelFormat.ONNX, tmp_path), QatQuantize(include=("nothing",), **QUICK), context
        )


def test_the_original_is_an_onnx_model_still(files: Files, digits: Callable[..., Dataset], tmp_path: Path) -> None:
    path = files(ModelFormat.ONNX)
    context = context_for(path, ModelFormat.ONNX, digits("cnn", train=True), tmp_path)

    made = qat_onnx.train_quantized(opened(path, ModelFormat.ONNX, tmp_path), QatQuantize(bits=4, **QUICK), context)

    assert isinstance(made, OnnxModel)
    onnx.checker.check_model(made.proto, full_check=True)
