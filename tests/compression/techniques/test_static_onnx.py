from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.compression.judging import accuracy, cosine, logits, run_in_stock_onnxruntime
from workers.compression.context import Context
from workers.compression.data import Dataset, first_feeds
from workers.compression.families.onnx.batch_norm import fold_batch_norms
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.steps.quantize import StaticQuantize
from workers.compression.techniques.quantize.static import onnx as static

Open = Callable[[str], OnnxModel]
Digits = Callable[..., Dataset]


def quantized(kind: str, open_onnx: Open, digits: Digits, folder: Path, **fields: object) -> OnnxModel:
    context = Context(scratch=folder, calibration=digits(kind, train=True))
    model = static.quantize_statically(open_onnx(kind), StaticQuantize(samples=128, **fields), context)
    assert isinstance(model, OnnxModel)
    return model


@pytest.mark.parametrize("estimator", ["minmax", "moving_average", "percentile", "entropy", "mse"])
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_networks_keep_their_accuracy_on_integers(
    kind: str, estimator: str, open_onnx: Open, digits: Digits, tmp_path: Path
) -> None:
    original, rows = open_onnx(kind), digits(kind)

    compressed = quantized(kind, open_onnx, digits, tmp_path, range=estimator)

    assert compressed.size_bytes() < 0.4 * original.size_bytes()
    assert cosine(logits(original, rows), logits(compressed, rows)) > 0.98
    assert accuracy(compressed, rows) > accuracy(original, rows) - 0.02


def test_convolutions_become_integer_kernels_in_the_runtime(open_onnx: Open, digits: Digits, tmp_path: Path) -> None:
    import onnxruntime

    quantized("cnn", open_onnx, digits, tmp_path).save(tmp_path / "small.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 4

    onnxruntime.InferenceSession(tmp_path / "small.onnx", options)

    operators = [node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node]
    assert operators.count("QLinearConv") == 3
    assert "Conv" not in operators
    assert "BatchNormalization" not in operators


def test_stock_onnxruntime_runs_the_file_and_agrees(open_onnx: Open, digits: Digits, tmp_path: Path) -> None:
    compressed = quantized("cnn", open_onnx, digits, tmp_path)
    compressed.save(tmp_path / "small.onnx")
    onnx.checker.check_model(str(tmp_path / "small.onnx"), full_check=True)
    feeds = first_feeds(digits("cnn"), compressed.inputs, None, 16)

    output = run_in_stock_onnxruntime(tmp_path / "small.onnx", feeds, tmp_path)

    np.testing.assert_array_equal(output, compressed.run(feeds)[0])


def test_the_same_rows_give_the_same_bytes(open_onnx: Open, digits: Digits, tmp_path: Path) -> None:
    first, second = (quantized("cnn", open_onnx, digits, tmp_path).serialized() for _ in range(2))

    assert first == second


def test_layers_that_break_the_budget_are_left_out_and_named(
    open_onnx: Open, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static, "OUTPUT_BUDGET_DB", 51.0)
    context = Context(scratch=tmp_path, calibration=digits("cnn", train=True))

    compressed = static.quantize_statically(open_onnx("cnn"), StaticQuantize(samples=128), context)

    assert any("keep computing in float" in warning for warning in context.warnings)
    rows = digits("cnn")
    assert cosine(logits(open_onnx("cnn"), rows), logits(compressed, rows)) > 0.999


def test_where_no_layer_keeps_the_budget_nothing_is_delivered(
    open_onnx: Open, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static, "OUTPUT_BUDGET_DB", 300.0)

    with pytest.raises(UnsupportedTechnique, match="within 300 dB"):
        quantized("mlp", open_onnx, digits, tmp_path)


def test_parameters_count_the_same_before_and_after(open_onnx: Open, digits: Digits, tmp_path: Path) -> None:
    compressed = quantized("mlp", open_onnx, digits, tmp_path)

    before = {layer.name: layer.parameters for layer in open_onnx("mlp").stored_layers()}
    after = {layer.name: layer.parameters for layer in compressed.stored_layers()}
    assert after == before


def test_weights_of_integer_layers_are_stored_as_integers(open_onnx: Open, digits: Digits, tmp_path: Path) -> None:
    compressed = quantized("mlp", open_onnx, digits, tmp_path)

    matrices = [tensor for tensor in compressed.proto.graph.initializer if len(tensor.dims) == 2]
    assert {tensor.data_type for tensor in matrices} == {TensorProto.INT8}


def test_folding_batch_norms_changes_no_output(open_onnx: Open, digits: Digits) -> None:
    original, folded, rows = open_onnx("cnn"), open_onnx("cnn"), digits("cnn")
    if any(node.op_type == "BatchNormalization" for node in original.proto.graph.node):
        assert fold_batch_norms(folded.proto) == 2
        folded.changed()

    np.testing.assert_allclose(logits(folded, rows), logits(original, rows), rtol=1e-3, atol=1e-4)


def test_without_rows_it_says_so(open_onnx: Open, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedTechnique, match="calibration rows"):
        static.quantize_statically(open_onnx("mlp"), StaticQuantize(), Context(scratch=tmp_path))
