"""The commands that need no service start the engine in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from workers.compression.families.onnx.model import OnnxModel
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.kmeans import Clustering, cluster


def pressroom(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli.main", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=300)


def test_expand_writes_a_dense_file_and_says_how_large_it_is(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(64, 48)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 48])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = OnnxModel(helper.make_model(graph, ir_version=6, opset_imports=[helper.make_opsetid("", 11)]))
    (found,) = model.weights()
    form = cluster(model.matrix(found), Blocks.of_matrix(found.matrix_shape, "tensor"), Clustering(2))
    model.store([(found, form)])
    model.save(tmp_path / "packed.onnx")

    done = pressroom("expand", str(tmp_path / "packed.onnx"), "--output", str(tmp_path / "dense.onnx"))

    assert done.returncode == 0, done.stderr
    assert "1 weight expanded" in done.stdout
    (stored,) = onnx.load(tmp_path / "dense.onnx").graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(stored), found.from_matrix(form.restored()))


def test_expand_says_why_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"not a model")
    done = pressroom("expand", str(tmp_path / "no.onnx"), "--output", str(tmp_path / "dense.onnx"))
    assert done.returncode == 1
    assert "invalid_model" in done.stderr
    assert not (tmp_path / "dense.onnx").exists()
