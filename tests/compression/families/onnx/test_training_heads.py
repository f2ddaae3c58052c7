"""A fresh last layer, or the reason why there is none."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests import trained
from tests.compression.families.onnx.graphs import check, graph_of
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.families.onnx.training.adapter import trainable_model
from workers.compression.specs.errors import UnsupportedTechnique

RNG = np.random.default_rng(5)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def tensors(model: OnnxModel) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.proto.graph.initializer}


def linear(*behind: str, product: str = "Gemm", opset: int = 21) -> OnnxModel:
    """Two layers and what stands behind the second."""
    nodes = [helper.make_node("MatMul", ["x", "body"], ["h"])]
    if product == "Gemm":
        nodes.append(helper.make_node("Gemm", ["h", "w", "b"], ["out0"], transB=1))
    else:
        nodes += [helper.make_node("MatMul", ["h", "w"], ["p"]), helper.make_node("Add", ["b", "p"], ["out0"])]
    for position, operator in enumerate(behind):
        nodes.append(helper.make_node(operator, [f"out{position}"], [f"out{position + 1}"]))
    weight = floats(3, 4) if product == "Gemm" else floats(4, 3)
    stored = {"body": floats(5, 4), "w": weight, "b": floats(3)}
    return graph_of(nodes, {"x": floats(2, 5)}, [f"out{len(behind)}"], stored, opset)


@pytest.mark.parametrize("product", ["Gemm", "MatMul"])
@pytest.mark.parametrize("activation", [(), ("Softmax",), ("LogSoftmax", "Identity"), ("Sigmoid",)])
def test_new_head_has_an_output_per_class_and_keeps_body_and_activation(
    product: str, activation: tuple[str, ...]
) -> None:
    model = trainable_model(linear(*activation, product=product))

    made = model.with_head(("a", "b", "c", "d", "e", "f", "g"), seed=4)

    check(made.proto)
    [answer] = made.run({"x": floats(2, 5)})
    assert answer.shape == (2, 7)
    assert [node.op_type for node in made.proto.graph.node][-len(activation) :] == list(activation) or not activation
    np.testing.assert_array_equal(tensors(made)["body"], tensors(model)["body"])
    assert np.abs(tensors(made)["w"]).max() <= 0.5  # 1/√4 inputs
    expected = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}
    assert made.trainable().output_activation == expected.get(activation[0] if activation else "", "none")


def test_new_head_of_an_exported_network_has_its_width_in_the_file(tmp_path: Path) -> None:
    model = trainable_model(OnnxModel(onnx.load(trained.write_onnx("cnn", tmp_path / "model.onnx"))))

    made = model.with_head(("even", "odd"), seed=0)

    check(made.proto)
    assert made.outputs[0].shape[-1] == 2
    assert made.run({"input": trained.example_input("cnn").numpy()})[0].shape == (2, 2)


def test_the_same_seed_gives_the_same_head_and_the_model_stays() -> None:
    model = trainable_model(linear())
    before = model.serialized()

    first, again, other = (model.with_head(("a", "b"), seed).serialized() for seed in (1, 1, 2))

    assert first == again != other
    assert model.serialized() == before


def test_one_class_is_a_value_without_softmax() -> None:
    made = trainable_model(linear("Softmax")).with_head(("price",), seed=0)

    [answer] = made.run({"x": floats(4, 5)})

    assert answer.shape == (4, 1)
    assert len(np.unique(answer)) == 4
    assert made.trainable().output_activation == "none"


def test_a_weight_used_elsewhere_is_not_overwritten() -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["h"]),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["h", "turned"], ["y"]),
    ]
    model = trainable_model(graph_of(nodes, {"ids": np.array([0, 3])}, ["y"], {"table": floats(5, 4)}))

    made = model.with_head(("a", "b"), seed=0)

    check(made.proto)
    assert made.run({"ids": np.array([0, 3])})[0].shape == (2, 2)
    np.testing.assert_array_equal(tensors(made)["table"], tensors(model)["table"])


def test_a_softmax_written_out_is_recognized() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Exp", ["h"], ["e"]),
        helper.make_node("ReduceSum", ["e", "axis"], ["s"]),
        helper.make_node("Div", ["e", "s"], ["y"]),
    ]
    model = graph_of(nodes, {"x": floats(2, 3)}, ["y"], {"w": floats(3, 4), "axis": np.array([-1])})

    assert trainable_model(model).trainable().output_activation == "softmax"


def test_models_without_one_linear_last_layer_say_why() -> None:
    feeds = {"x": floats(1, 2, 5, 5)}
    conv = helper.make_node("Conv", ["x", "w"], ["y"], name="last")
    two = [helper.make_node("MatMul", ["x", "v"], ["y"]), helper.make_node("MatMul", ["x", "v"], ["z"])]
    read_twice = [
        helper.make_node("MatMul", ["x", "v"], ["h"]),
        helper.make_node("Softmax", ["h"], ["s"]),
        helper.make_node("Identity", ["s"], ["y"]),
        helper.make_node("Identity", ["h"], ["z"]),
    ]
    cases = {
        "'last' is a Conv": graph_of([conv], feeds, ["y"], {"w": floats(3, 2, 3, 3)}),
        "has 2 outputs": graph_of(two, feeds, ["y", "z"], {"v": floats(5, 4)}),
        "it has 2 outputs": graph_of(read_twice, feeds, ["y", "z"], {"v": floats(5, 4)}),
    }

    for why, model in cases.items():
        with pytest.raises(UnsupportedTechnique, match=why):
            trainable_model(model).with_head(("a", "b"), seed=0)
