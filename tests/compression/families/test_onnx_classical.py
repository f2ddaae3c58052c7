from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from workers.compression.context import Context
from workers.compression.families.onnx.family import inspect, open_model
from workers.compression.specs.errors import InvalidModel

MACHINE = {
    "kernel_type": "LINEAR",
    "kernel_params": [0.0, 0.0, 3.0],
    "n_supports": 2,
    "support_vectors": [1.0, 0.0, 0.0, 1.0],
    "coefficients": [0.5, -0.5],
    "rho": [0.25],
}


def machine(**changed: object) -> ModelProto:
    """A support vector regression over two features: ``x0 / 2 - x1 / 2 + 1 / 4``."""
    node = helper.make_node("SVMRegressor", ["x"], ["y"], domain="ai.onnx.ml", **(MACHINE | changed))
    graph = helper.make_graph(
        [node],
        "machine",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_a_sound_machine_is_accepted_and_runs(tmp_path: Path) -> None:
    path = tmp_path / "machine.onnx"
    path.write_bytes(machine().SerializeToString())

    inspect(path, tmp_path, Context(scratch=tmp_path))

    output = open_model(path, Context(scratch=tmp_path)).run({"x": np.array([[3.0, 1.0]], np.float32)})[0]
    np.testing.assert_allclose(output, [[1.25]])


@pytest.mark.parametrize(
    "changed",
    [
        {"n_supports": 3},
        {"n_supports": -1},
        {"n_supports": 1 << 40},
        {"coefficients": [0.5]},
        {"support_vectors": [1.0, 0.0, 0.0]},
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(changed: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "machine.onnx"
    path.write_bytes(machine(**changed).SerializeToString())

    with pytest.raises(InvalidModel, match="SVMRegressor"):
        inspect(path, tmp_path, Context(scratch=tmp_path))
