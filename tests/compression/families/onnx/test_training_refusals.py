"""What cannot be trained is named, all of it at once, and opening a model needs no torch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from tests import trained
from tests.compression.families.onnx.graphs import graph_of
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.families.trainable import as_trainable
from workers.compression.specs.errors import UnsupportedOperator

FLOATS = np.ones((2, 3), np.float32)


def refusal(model: OnnxModel) -> UnsupportedOperator:
    with pytest.raises(UnsupportedOperator) as caught:
        as_trainable(model).trainable()
    return caught.value


def test_all_unsupported_operators_are_named_with_a_node_each() -> None:
    nodes = [
        helper.make_node("Hardmax", ["x"], ["a"], name="first"),
        helper.make_node("Hardmax", ["a"], ["b"], name="second"),
        helper.make_node("Bernoulli", ["b"], ["c"], name="third"),
        helper.make_node("AveragePool", ["image"], ["d"], name="fourth", kernel_shape=[2], dilations=[2]),
    ]
    feeds = {"x": FLOATS, "image": np.ones((1, 2, 9), np.float32)}

    found = refusal(graph_of(nodes, feeds, ["c", "d"], {})).detail

    for part in ("Hardmax (node 'first')", "Bernoulli (node 'third')", "AveragePool where its windows are dilated"):
        assert part in found


def test_operators_that_no_output_depends_on_are_no_obstacle() -> None:
    nodes = [helper.make_node("Hardmax", ["x"], ["unused"]), helper.make_node("Mul", ["x", "w"], ["y"])]

    found = as_trainable(graph_of(nodes, {"x": FLOATS}, ["y"], {"w": FLOATS})).trainable()

    assert list(found.names) == ["w"]


def test_branches_are_refused() -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])],
        "branch",
        [],
        [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["which"], ["y"], name="choice", then_branch=branch, else_branch=branch)

    found = refusal(graph_of([node], {"x": FLOATS, "which": np.array(True)}, ["y"], {}))

    assert "If (node 'choice')" in found.detail


def test_quantized_models_are_to_be_trained_before(tmp_path: Path) -> None:
    source = trained.write_onnx("mlp", tmp_path / "model.onnx")
    model = onnx.load(source)
    del model.graph.value_info[:]  # the quantizer infers shapes itself
    onnx.save(model, source)
    quantize_dynamic(source, tmp_path / "int8.onnx", weight_type=QuantType.QInt8)
    stored = {"q": np.ones((3, 4), np.int8), "scale": np.array(0.1, np.float32)}
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    by_hand = [
        helper.make_node("Cast", ["q"], ["float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]

    for quantized in (
        OnnxModel(onnx.load(tmp_path / "int8.onnx")),
        graph_of(nodes, {"x": FLOATS}, ["y"], stored),
        graph_of(by_hand, {"x": FLOATS}, ["y"], stored),
    ):
        assert refusal(quantized).hint == "Train the model before quantizing it."


def test_old_operator_sets_are_refused() -> None:
    model = graph_of([helper.make_node("Relu", ["x"], ["y"])], {"x": FLOATS}, ["y"], {}, opset=6)

    assert "opset 6" in refusal(model).detail


def test_a_model_without_float_weights_has_nothing_to_learn() -> None:
    model = graph_of([helper.make_node("Relu", ["x"], ["y"])], {"x": FLOATS}, ["y"], {})

    assert "no float weights" in refusal(model).detail


def test_opening_a_model_does_not_load_torch() -> None:
    program = "import sys, workers.compression.families.onnx.family; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
