from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.compression.judging import accuracy, cosine, logits, run_in_stock_onnxruntime
from workers.compression.context import Context
from workers.compression.data import Dataset, first_feeds
from workers.compression.families.onnx.family import open_model
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.layers import compare_layers
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.job import Target
from workers.compression.specs.steps.quantize import DynamicQuantize
from workers.compression.techniques.quantize.dynamic.onnx import quantize_dynamically

Open = Callable[[str], OnnxModel]
Digits = Callable[..., Dataset]


@pytest.mark.parametrize("scheme", ["auto", "affine", "symmetric"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_a_perceptron_shrinks_fourfold_and_keeps_its_accuracy(
    scheme: str, granularity: str, open_onnx: Open, digits: Digits, tmp_path: Path
) -> None:
    original, rows = open_onnx("mlp"), digits("mlp")

    spec = DynamicQuantize(scheme=scheme, granularity=granularity)
    compressed = quantize_dynamically(open_onnx("mlp"), spec, Context(scratch=tmp_path))

    assert compressed.size_bytes() < 0.32 * original.size_bytes()
    assert cosine(logits(original, rows), logits(compressed, rows)) > 0.998
    assert accuracy(compressed, rows) > accuracy(original, rows) - 0.01


def test_it_is_closer_to_the_original_than_onnxruntimes_own_tool(
    open_onnx: Open, onnx_file: Callable[[str], Path], digits: Digits, tmp_path: Path
) -> None:
    from onnxruntime.quantization import quantize_dynamic

    rows, exact = digits("mlp"), logits(open_onnx("mlp"), digits("mlp"))
    quantize_dynamic(onnx_file("mlp"), tmp_path / "peer.onnx")
    peer = open_model(tmp_path / "peer.onnx", Context(scratch=tmp_path))

    ours = quantize_dynamically(open_onnx("mlp"), DynamicQuantize(), Context(scratch=tmp_path))

    assert cosine(exact, logits(ours, rows)) >= cosine(exact, logits(peer, rows))


def test_weights_do_not_saturate_on_processors_that_add_products_in_16_bits(open_onnx: Open, tmp_path: Path) -> None:
    context = Context(scratch=tmp_path, target=Target(hardware="cpu-avx2"))
    compressed = quantize_dynamically(open_onnx("mlp"), DynamicQuantize(scheme="symmetric"), context)

    integers = [
        numpy_helper.to_array(tensor)
        for tensor in compressed.proto.graph.initializer
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 2
    ]
    assert integers
    assert max(np.abs(values.astype(int)).max() for values in integers) == 63


def test_layers_keep_their_names_sizes_and_about_their_weights(open_onnx: Open, tmp_path: Path) -> None:
    original = open_onnx("mlp")
    compressed = quantize_dynamically(open_onnx("mlp"), DynamicQuantize(), Context(scratch=tmp_path))

    layers = compare_layers(original, compressed)

    assert [layer.name for layer in layers] == [layer.name for layer in original.stored_layers()]
    assert sum(layer.parameters for layer in compressed.stored_layers()) == sum(layer.parameters for layer in layers)
    assert all(layer.sqnr_db is not None and layer.sqnr_db > 25 for layer in layers)
    assert all(layer.bits < 10 for layer in layers if layer.parameters > 10_000)


def test_convolutions_shrink_in_the_file_and_say_that_they_run_in_float(
    open_onnx: Open, digits: Digits, tmp_path: Path
) -> None:
    context = Context(scratch=tmp_path)
    original, rows = open_onnx("cnn"), digits("cnn")
    compressed = quantize_dynamically(open_onnx("cnn"), DynamicQuantize(), context)

    assert any("restored to float" in warning for warning in context.warnings)
    assert compressed.size_bytes() < 0.33 * original.size_bytes()
    assert accuracy(compressed, rows) > accuracy(original, rows) - 0.01


def test_restored_weights_are_folded_when_the_model_is_loaded(open_onnx: Open, tmp_path: Path) -> None:
    quantize_dynamically(open_onnx("cnn"), DynamicQuantize(), Context(scratch=tmp_path)).save(tmp_path / "small.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC

    onnxruntime.InferenceSession(tmp_path / "small.onnx", options)

    loaded = onnx.load(tmp_path / "loaded.onnx")
    kernels = {tensor.name for tensor in loaded.graph.initializer if len(tensor.dims) == 4}
    convolutions = [node for node in loaded.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 3
    assert all(node.input[1] in kernels for node in convolutions)


def test_stock_onnxruntime_runs_the_file_and_agrees(open_onnx: Open, digits: Digits, tmp_path: Path) -> None:
    compressed = quantize_dynamically(open_onnx("mlp"), DynamicQuantize(), Context(scratch=tmp_path))
    compressed.save(tmp_path / "small.onnx")
    onnx.checker.check_model(str(tmp_path / "small.onnx"), full_check=True)
    feeds = first_feeds(digits("mlp"), compressed.inputs, None, 32)

    output = run_in_stock_onnxruntime(tmp_path / "small.onnx", feeds, tmp_path)

    np.testing.assert_array_equal(output, compressed.run(feeds)[0])


def test_the_users_rows_make_it_more_exact(open_onnx: Open, digits: Digits, tmp_path: Path) -> None:
    rows, exact = digits("mlp"), logits(open_onnx("mlp"), digits("mlp"))
    blind = quantize_dynamically(open_onnx("mlp"), DynamicQuantize(), Context(scratch=tmp_path))
    context = Context(scratch=tmp_path, calibration=digits("mlp", train=True))
    informed = quantize_dynamically(open_onnx("mlp"), DynamicQuantize(), context)

    assert cosine(exact, logits(informed, rows)) >= cosine(exact, logits(blind, rows)) - 1e-5


def test_globs_leave_layers_float(open_onnx: Open, tmp_path: Path) -> None:
    first = next(layer.name for layer in open_onnx("mlp").stored_layers())
    compressed = quantize_dynamically(open_onnx("mlp"), DynamicQuantize(exclude=(first,)), Context(scratch=tmp_path))

    bits = {layer.name: layer.bits for layer in compressed.stored_layers()}
    assert bits[first] == 32.0
    assert min(bits.values()) < 10


def test_a_quantized_model_is_refused_for_the_true_reason(open_onnx: Open, tmp_path: Path) -> None:
    once = quantize_dynamically(open_onnx("mlp"), DynamicQuantize(), Context(scratch=tmp_path))

    with pytest.raises(UnsupportedTechnique, match="already quantized"):
        quantize_dynamically(once, DynamicQuantize(exclude=("nothing",)), Context(scratch=tmp_path))


def test_weights_that_are_not_finite_stay_as_they_are(tmp_path: Path) -> None:
    weights = np.full((64, 64), np.nan, np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="broken")],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = OnnxModel(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    context = Context(scratch=tmp_path)

    with pytest.raises(UnsupportedTechnique):
        quantize_dynamically(model, DynamicQuantize(), context)
    assert "broken" in context.warnings[0]
