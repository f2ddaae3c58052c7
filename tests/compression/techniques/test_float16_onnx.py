from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.compression.judging import logits
from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.steps.quantize import Float16Quantize
from workers.compression.techniques.quantize.float16.onnx import store_in_half_precision

Open = Callable[[str], OnnxModel]
Digits = Callable[..., Dataset]


def matrix_product(weights: np.ndarray) -> OnnxModel:
    rows, columns = weights.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", columns])],
        [numpy_helper.from_array(weights, "w")],
    )
    return OnnxModel(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_files_halve_and_outputs_hardly_move(kind: str, open_onnx: Open, digits: Digits, tmp_path: Path) -> None:
    original, rows = open_onnx(kind), digits(kind)

    compressed = store_in_half_precision(open_onnx(kind), Float16Quantize(), Context(scratch=tmp_path))

    assert compressed.size_bytes() < 0.56 * original.size_bytes()
    np.testing.assert_allclose(logits(compressed, rows), logits(original, rows), atol=0.05)


def test_outputs_are_exactly_those_of_the_rounded_weights(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    rounded = matrix_product(weights.astype(np.float16).astype(np.float32))
    feeds = {"x": np.random.default_rng(1).normal(size=(8, 64)).astype(np.float32)}

    compressed = store_in_half_precision(matrix_product(weights), Float16Quantize(), Context(scratch=tmp_path))

    np.testing.assert_array_equal(compressed.run(feeds)[0], rounded.run(feeds)[0])


def test_values_beyond_half_precision_keep_their_tensor_float(tmp_path: Path) -> None:
    weights = np.ones((64, 32), np.float32)
    weights[0, 0] = 1e5
    context = Context(scratch=tmp_path)

    with pytest.raises(UnsupportedTechnique, match="fits float16"):
        store_in_half_precision(matrix_product(weights), Float16Quantize(), context)
    assert "stays float32" in context.warnings[0]


def test_layers_keep_their_names_and_parameters(open_onnx: Open, tmp_path: Path) -> None:
    compressed = store_in_half_precision(open_onnx("cnn"), Float16Quantize(), Context(scratch=tmp_path))

    before = [(layer.name, layer.parameters) for layer in open_onnx("cnn").stored_layers()]
    assert [(layer.name, layer.parameters) for layer in compressed.stored_layers()] == before
