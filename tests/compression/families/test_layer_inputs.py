"""What enters layers is seen exactly as the layers see it, in every format."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests import trained
from tests.compression.test_contract import tiny_bert, tokens
from workers.compression.context import Context
from workers.compression.data import Dataset, open_dataset
from workers.compression.engine import perform
from workers.compression.families.observed_inputs import Windows
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.families.weights import CompressibleModel, LayerInputs, as_compressible
from workers.compression.registry import family
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import DatasetFile, InspectModel

Digits = Callable[..., Dataset]


def statistics(model: CompressibleModel, rows: Dataset) -> dict[str, LayerInputs]:
    return {weight.name: inputs for weight, inputs in model.layer_inputs(model.weights(), rows)}


def of_vectors(vectors: np.ndarray) -> LayerInputs:
    vectors = vectors.astype(np.float64)
    return LayerInputs(vectors.T @ vectors / len(vectors), np.abs(vectors).mean(axis=0), len(vectors))


def assert_same(found: LayerInputs, expected: LayerInputs) -> None:
    assert found.count == expected.count
    np.testing.assert_allclose(found.gram, expected.gram, rtol=1e-3, atol=1e-4 * np.abs(expected.gram).max())
    np.testing.assert_allclose(found.magnitude, expected.magnitude, rtol=1e-3, atol=1e-5)


def saved(values: dict[str, np.ndarray], folder: Path) -> Dataset:
    np.savez(folder / "rows.npz", **values)
    return open_dataset(DatasetFile(path=str(folder / "rows.npz"), format=DatasetFormat.NPZ))


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
@pytest.mark.parametrize("model_format", [ModelFormat.ONNX, ModelFormat.PT2])
def test_both_exports_see_what_hooks_on_the_network_see(
    kind: str, model_format: ModelFormat, onnx_file: Callable[[str], Path], digits: Digits, tmp_path: Path
) -> None:
    is_onnx = model_format is ModelFormat.ONNX
    path = onnx_file(kind) if is_onnx else trained.write_pt2(kind, tmp_path / "model.pt2")
    model = as_compressible(family(model_format).open_model(path, Context(scratch=tmp_path)))
    rows = digits(kind).limited(24)
    images = torch.from_numpy(np.concatenate([batch.feeds["input"] for batch in rows.batches(model.inputs, 8, None)]))

    found = list(statistics(model, rows).values())

    network, expected = trained.trained(kind), []
    with torch.inference_mode():
        values = images
        for layer in network:
            if isinstance(layer, torch.nn.Conv2d):
                unfolded = torch.nn.functional.unfold(values, 3, padding=1)
                expected.append(of_vectors(unfolded.transpose(1, 2).reshape(-1, unfolded.shape[1]).numpy()))
            elif isinstance(layer, torch.nn.Linear):
                expected.append(of_vectors(values.numpy()))
            values = layer(values)
    assert len(found) == len(expected)
    for inputs, wanted in zip(found, expected, strict=True):
        assert_same(inputs, wanted)


def test_masked_tokens_do_not_count_in_a_transformer(tmp_path: Path) -> None:
    upload = tiny_bert(tmp_path / "bert.zip")
    inspection = perform(InspectModel(path=str(upload)), tmp_path, Context(scratch=tmp_path))
    path = tmp_path / inspection.clean if inspection.clean else upload
    model = as_compressible(family(ModelFormat.HUGGINGFACE).open_model(path, Context(scratch=tmp_path)))
    with np.load(tokens(tmp_path / "tokens.npz")) as loaded:
        values = {name: loaded[name][:16] for name in loaded.files if name != "target"}
    whole = statistics(model, saved(values, tmp_path))
    values["attention_mask"][:, 9:] = 0
    values["input_ids"][:, 9:] = 0

    masked = statistics(model, saved(values, tmp_path))

    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert whole[name].count == 16 * 12
    assert masked[name].count == 16 * 9
    assert "bert.embeddings.word_embeddings.weight" not in whole
    values["input_ids"][:, 9:] = 7
    np.testing.assert_allclose(statistics(model, saved(values, tmp_path))[name].gram, masked[name].gram, rtol=1e-3)


@pytest.mark.parametrize("case", ["matmul", "transposed", "gemm", "gemm_by_rows", "shared", "lstm"])
def test_onnx_products_are_watched_along_their_inner_axis(case: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(20, 3, 6)).astype(np.float32) if case == "lstm" else random.normal(size=(20, 6))
    x = x.astype(np.float32)
    nodes, weights, vectors = _graph(case, random, x)
    shape = ["batch", *x.shape[1:]]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    found = statistics(OnnxModel(proto), saved({"x": x}, tmp_path))

    assert_same(found["w"], of_vectors(vectors))


def _graph(case: str, random: np.random.Generator, x: np.ndarray) -> tuple[list, dict[str, np.ndarray], np.ndarray]:
    w = random.normal(size=(6, 6)).astype(np.float32)
    if case == "lstm":
        weights = {"w": random.normal(size=(1, 8, 6)), "r": random.normal(size=(1, 8, 2))}
        node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=2)
        return [node], {name: values.astype(np.float32) for name, values in weights.items()}, x.reshape(-1, 6)
    if case == "transposed":
        turned = helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0])
        return [turned, helper.make_node("MatMul", ["x", "t"], ["y"])], {"w": w}, x
    if case == "shared":
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("Relu", ["h"], ["p"]),
            helper.make_node("MatMul", ["p", "w"], ["y"]),
        ]
        return nodes, {"w": w}, np.concatenate([x, np.maximum(x @ w, 0)])
    if case == "matmul":
        return [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": w}, x
    by_rows = int(case == "gemm_by_rows")
    return [helper.make_node("Gemm", ["x", "w"], ["y"], transB=by_rows)], {"w": w}, x


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("stride", "dilation", "padding"), [(1, 1, 1), (2, 1, 0), (1, 2, 2), (3, 2, 1)])
def test_convolutions_are_cut_as_torch_cuts_them(stride: int, dilation: int, padding: int, groups: int) -> None:
    values = np.random.default_rng(0).normal(size=(2, 4, 11, 13)).astype(np.float32)
    windows = Windows((3, 2), (stride,) * 2, (dilation,) * 2, ((padding, padding),) * 2, groups)

    vectors = windows.vectors(values, 10_000, np.random.default_rng(0))

    unfolded = torch.nn.functional.unfold(torch.from_numpy(values), (3, 2), dilation, padding, stride)
    expected = unfolded.transpose(1, 2).reshape(-1, 4 * 6 // groups).numpy()
    np.testing.assert_array_equal(vectors, expected)


def test_of_many_positions_a_fair_part_is_drawn() -> None:
    values = np.random.default_rng(0).normal(size=(4, 3, 64, 64)).astype(np.float32)
    windows = Windows((3, 3), (1, 1), (1, 1), "same_upper")

    drawn, whole = (windows.vectors(values, most, np.random.default_rng(0)) for most in (2000, 1 << 20))

    assert drawn.shape == (2000, 27)
    assert whole.shape == (4 * 64 * 64, 27)
    np.testing.assert_allclose(drawn.T @ drawn / 2000, whole.T @ whole / len(whole), atol=0.15)


def test_statistics_do_not_depend_on_which_other_weights_are_asked_for(
    open_onnx: Callable[[str], OnnxModel], digits: Digits
) -> None:
    model, rows = open_onnx("cnn"), digits("cnn").limited(160)
    weights = model.weights()

    together = statistics(model, rows)
    ((_, alone),) = model.layer_inputs(weights[2:3], rows)

    np.testing.assert_array_equal(together[weights[2].name].gram, alone.gram)
