"""A model with other values in some weights, without being changed, in every format."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests import trained
from workers.compression.context import Context
from workers.compression.data import first_feeds, open_dataset
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.families.weights import CompressibleModel
from workers.compression.registry import family
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import DatasetFile

WRITERS = {ModelFormat.ONNX: trained.write_onnx, ModelFormat.PT2: trained.write_pt2}


def opened(kind: str, model_format: ModelFormat, folder: Path) -> CompressibleModel:
    path = WRITERS[model_format](kind, folder / f"model.{model_format.value}")
    model = family(model_format).open_model(path, Context(scratch=folder))
    assert isinstance(model, CompressibleModel)
    return model


def feeds(model: CompressibleModel, kind: str, folder: Path) -> dict[str, np.ndarray]:
    path = trained.write_npz(kind, folder / "rows.npz")
    return dict(first_feeds(open_dataset(DatasetFile(path=str(path), format=DatasetFormat.NPZ)), model.inputs, None, 8))


@pytest.mark.parametrize("model_format", WRITERS)
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_a_variant_answers_as_the_changed_model_would(kind: str, model_format: ModelFormat, tmp_path: Path) -> None:
    model, changed = (opened(kind, model_format, tmp_path) for _ in range(2))
    rows = feeds(model, kind, tmp_path)
    before = model.run(rows)[0]
    weights = model.weights()[-2:]
    values = [(weight, np.round(model.matrix(weight), 1)) for weight in weights]
    with model.varied(values) as run:
        varied = run(rows)[0]
    changed.replace(values)
    np.testing.assert_allclose(varied, changed.run(rows)[0], rtol=1e-4, atol=1e-4)
    assert np.abs(varied - before).max() > 1e-3
    np.testing.assert_array_equal(model.run(rows)[0], before)
    with model.varied(()) as run:
        np.testing.assert_allclose(run(rows)[0], before, rtol=1e-4, atol=1e-4)
    for weight in weights:
        np.testing.assert_array_equal(model.matrix(weight), opened(kind, model_format, tmp_path).matrix(weight))


def with_weights_everywhere() -> OnnxModel:
    """One weight in a ``Constant`` node, one in an initializer listed as an input, one in a branch."""
    random = np.random.default_rng(0)
    first, second, third = (random.normal(size=(4, 4)).astype(np.float32) for _ in range(3))
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["h", "third"], ["yes"], name="inside")],
        "then",
        [],
        [helper.make_tensor_value_info("yes", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(third, "third")],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["h"], ["no"])],
        "else",
        [],
        [helper.make_tensor_value_info("no", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Constant", [], ["first"], value=numpy_helper.from_array(first)),
        helper.make_node("MatMul", ["x", "first"], ["a"], name="one"),
        helper.make_node("MatMul", ["a", "second"], ["h"], name="two"),
        helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=other),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("second", TensorProto.FLOAT, [4, 4]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(second, "second"), numpy_helper.from_array(np.array(True), "flag")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(proto)
    return OnnxModel(proto)


def test_weights_of_constants_branches_and_listed_inputs_can_vary() -> None:
    model = with_weights_everywhere()
    rows = {"x": np.eye(4, dtype=np.float32)}
    stored = model.serialized()
    (before,) = model.run(rows)
    assert len(model.weights()) == 3
    for weight in model.weights():
        with model.varied([(weight, 2 * model.matrix(weight))]) as run:
            np.testing.assert_allclose(run(rows)[0], 2 * before, rtol=1e-5)
    assert model.serialized() == stored
