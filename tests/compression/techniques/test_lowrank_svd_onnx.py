from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.compression.judging import accuracy
from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.factorization.truncation import Decomposition
from workers.compression.families.onnx.factored_layers import factor, factorable
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.specs.errors import ConstraintInfeasible, NumericalFailure, UnsupportedTechnique
from workers.compression.specs.steps.lowrank import SvdLowrank
from workers.compression.techniques.lowrank.svd.onnx import factor_graph

Open = Callable[[str], OnnxModel]
Digits = Callable[..., Dataset]


def factored(model: OnnxModel, rows: Dataset, folder: Path, **fields: object) -> tuple[OnnxModel, Context]:
    context = Context(scratch=folder, calibration=rows)
    factor_graph(model, SvdLowrank(**fields), context)
    return model, context


def parameters(model: OnnxModel) -> int:
    return sum(weight.size for weight in model.weights())


def convolution(attributes: dict[str, object], kernel: tuple[int, int]) -> OnnxModel:
    """Of 6 to 8 channels, with a bias."""
    random = np.random.default_rng(0)
    weight = random.normal(size=(8, 6, *kernel)).astype(np.float32)
    bias = random.normal(size=8).astype(np.float32)
    node = helper.make_node("Conv", ["input", "weight", "bias"], ["output"], name="layer", **attributes)
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 6, 9, 11])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    return OnnxModel(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.lists(st.integers(0, 2), min_size=4, max_size=4),
    st.booleans(),
)
def test_two_convolutions_compute_what_one_of_their_product_does(
    kernel: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int], pads: list[int], same: bool
) -> None:
    attributes: dict[str, object] = {"strides": strides, "kernel_shape": kernel}
    # onnxruntime knows no dilation beside automatic padding.
    attributes |= {"auto_pad": "SAME_UPPER"} if same else {"pads": pads, "dilations": dilations}
    model = convolution(attributes, kernel)
    (weight,) = factorable(model.proto)
    factors = Decomposition(model.matrix(weight), None).truncated(3)
    feeds = {"input": np.random.default_rng(1).normal(size=(2, 6, 9, 11)).astype(np.float32)}

    model.replace([(weight, factors.product())])
    whole = model.run(feeds)[0]
    factor(model.proto, {weight.name: factors})
    model.changed()

    np.testing.assert_allclose(model.run(feeds)[0], whole, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**16))
def test_the_errors_are_those_of_the_outputs_and_no_other_factors_err_less(rows: int, columns: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(50, columns)) @ random.normal(size=(columns, columns))
    matrix = random.normal(size=(rows, columns)).astype(np.float32)
    gram = (inputs.T @ inputs / len(inputs)).astype(np.float32)
    found, plain = Decomposition(matrix, gram), Decomposition(matrix, None)

    def error(product: np.ndarray) -> float:
        return float(np.square(inputs @ (matrix - product).T).sum() / np.square(inputs @ matrix.T).sum())

    for rank in range(1, min(rows, columns) + 1):
        reached = error(found.truncated(rank).product())
        assert reached == pytest.approx(found.errors[rank], abs=1e-3)
        assert reached <= error(plain.truncated(rank).product()) + 1e-5


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_half_the_parameters_go_and_the_network_still_knows_its_digits(
    kind: str, open_onnx: Open, digits: Digits, tmp_path: Path
) -> None:
    rows = digits(kind)
    before = open_onnx(kind)
    model, context = factored(open_onnx(kind), rows, tmp_path, round_to=2)

    assert parameters(model) <= 0.55 * parameters(before)
    assert accuracy(model, rows) > accuracy(before, rows) - 0.02
    feeds = {"input": np.zeros((1, 64) if kind == "mlp" else (1, 1, 8, 8), np.float32)}
    assert model.macs(feeds) < 0.8 * before.macs(feeds)
    assert "of their" in context.changes[0]


def test_the_artifact_opens_in_stock_onnxruntime_and_keeps_the_names_of_its_layers(
    open_onnx: Open, digits: Digits, tmp_path: Path
) -> None:
    names = {layer.name for layer in open_onnx("cnn").stored_layers()}
    model, _ = factored(open_onnx("cnn"), digits("cnn"), tmp_path, round_to=2)
    model.save(tmp_path / "made.onnx")

    onnxruntime.InferenceSession(tmp_path / "made.onnx")
    assert names <= {layer.name for layer in model.stored_layers()}


def test_a_budget_that_no_ranks_keep_is_refused_with_what_can_be_reached(
    open_onnx: Open, digits: Digits, tmp_path: Path
) -> None:
    with pytest.raises(ConstraintInfeasible):
        factored(open_onnx("mlp"), digits("mlp"), tmp_path, keep=0.01)


def test_layers_that_two_cannot_replace_are_left_alone(open_onnx: Open, digits: Digits, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedTechnique):
        factored(open_onnx("mlp"), digits("mlp"), tmp_path, include=("nothing",))
    grouped = convolution({"group": 2}, (3, 3))
    grouped.proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float32), "weight"))
    assert factorable(grouped.proto) == []


def test_a_weight_that_is_not_finite_is_named(open_onnx: Open, digits: Digits, tmp_path: Path) -> None:
    model = open_onnx("mlp")
    weight = model.weights()[0]
    model.replace([(weight, np.full(weight.matrix_shape, np.nan, np.float32))])
    with pytest.raises(NumericalFailure, match=weight.layer):
        factored(model, digits("mlp"), tmp_path)
