"""Packed codebooks restore themselves in stock onnxruntime, whatever reads the weight, and leave nothing to run."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from workers.compression import expand
from workers.compression.families.onnx import gate
from workers.compression.families.onnx.expanding import expand as expand_proto
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.kmeans import Clustering, cluster
from workers.compression.quantization.scaled_kmeans import cluster_with_scales

FLOAT = TensorProto.FLOAT
RANDOM = np.random.default_rng(0)
RESTORING = {"BitShift", "GatherElements"}

RUN = """
import sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, sys.argv[3])
options.optimized_model_filepath = sys.argv[4]
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
ids = np.array([[1, 0, 29, 5]], np.int64)
np.save(sys.argv[2], session.run(None, {"ids": ids})[0])
"""


def stored(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(RANDOM.normal(size=shape).astype(np.float32), name)


def every_reader() -> ModelProto:
    """Weights read by a lookup tied to the last product, Gemm, MatMul, Conv, LSTM, in branches and Constants."""

    def branch(name: str) -> onnx.GraphProto:
        constant = helper.make_node("Constant", [], [f"{name}_weight"], value=stored(f"{name}_weight", 16, 24))
        product = helper.make_node("MatMul", ["hidden", f"{name}_weight"], [f"{name}_out"], name=f"{name}_product")
        value = helper.make_tensor_value_info(f"{name}_out", FLOAT, None)
        return helper.make_graph([constant, product], name, [], [value])

    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"], name="lookup"),
        helper.make_node("MatMul", ["embedded", "square"], ["projected"], name="projection"),
        helper.make_node("Transpose", ["projected"], ["sequence"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["sequence", "w", "r"], ["", "state"], hidden_size=16, name="recurrence"),
        helper.make_node("Squeeze", ["state"], ["hidden"], axes=[0]),
        helper.make_node(
            "If", ["condition"], ["chosen"], then_branch=branch("then"), else_branch=branch("else"), name="choice"
        ),
        helper.make_node("Gemm", ["chosen", "gemm"], ["wide"], transB=1, name="linear"),
        helper.make_node("Reshape", ["wide", "image"], ["pixels"]),
        helper.make_node("Conv", ["pixels", "kernel"], ["filtered"], kernel_shape=[3, 3], name="filter"),
        helper.make_node("ReduceMean", ["filtered"], ["pooled"], axes=[2, 3], keepdims=0),
        helper.make_node("Transpose", ["table"], ["tied"], perm=[1, 0]),
        helper.make_node("MatMul", ["pooled", "tied"], ["y"], name="output"),
    ]
    initializers = [
        stored("table", 30, 20),
        stored("square", 20, 20),
        stored("w", 1, 64, 20),
        stored("r", 1, 64, 16),
        stored("gemm", 50, 24),
        stored("kernel", 20, 2, 3, 3),
        numpy_helper.from_array(np.array(True), "condition"),
        numpy_helper.from_array(np.array([-1, 2, 5, 5], np.int64), "image"),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "length"])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 30])],
        initializers,
    )
    proto = helper.make_model(graph, ir_version=6, opset_imports=[helper.make_opsetid("", 11)])
    checker.check_model(proto, full_check=True)
    return proto


def rows_together(granularity: str, rows: int) -> int:
    return {"tensor": rows, "channel": 1, "group": 7}[granularity]


def both_ways(bits: int, granularity: str) -> tuple[OnnxModel, OnnxModel]:
    """The network with packed codebooks, and with their values stored densely."""
    packed, dense = OnnxModel(every_reader()), OnnxModel(every_reader())
    dense.proto.CopyFrom(packed.proto)
    forms = []
    for weight in packed.weights():
        matrix = packed.matrix(weight)
        if granularity == "scaled":
            length = next(count for count in (10, 8, 6, matrix.shape[1]) if matrix.shape[1] % count == 0)
            forms.append((weight, cluster_with_scales(matrix, length, Clustering(bits))))
            continue
        blocks = Blocks(matrix.shape, (min(rows_together(granularity, len(matrix)), len(matrix)), matrix.shape[1]))
        forms.append((weight, cluster(matrix, blocks, Clustering(bits))))
    assert len(forms) == 8
    dense.replace([(weight, form.restored()) for weight, form in forms])
    packed.store(forms)
    return packed, dense


def run(path: Path, level: str, python: Path | str = sys.executable) -> tuple[np.ndarray, set[str]]:
    """First output in a fresh process of a stock runtime, and the operators that it kept."""
    output, optimized = path.with_suffix(".npy"), path.with_name("optimized.onnx")
    subprocess.run([str(python), "-c", RUN, str(path), str(output), level, str(optimized)], check=True, timeout=300)
    graphs = [onnx.load(optimized).graph]
    operators: set[str] = set()
    while graphs:
        graph = graphs.pop()
        operators.update(node.op_type for node in graph.node)
        graphs += [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return np.load(output), operators


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group", "scaled"])
@pytest.mark.parametrize("bits", [1, 3, 4, 7, 8])
def test_the_installed_runtime_computes_with_the_very_values(bits: int, granularity: str, tmp_path: Path) -> None:
    packed, dense = both_ways(bits, granularity)
    packed.save(tmp_path / "packed.onnx")
    dense.save(tmp_path / "dense.onnx")
    level = "ORT_ENABLE_ALL" if bits % 2 else "ORT_ENABLE_BASIC"
    exact, plain = run(tmp_path / "dense.onnx", level)
    outputs, operators = run(tmp_path / "packed.onnx", level)
    np.testing.assert_array_equal(outputs, exact)
    # Rows of tables are restored when they are looked up; all else is gone.
    by_row = {"BitShift", "Cast", "Reshape", "Shape", "Concat", "Mul", "Add", "Slice"}
    assert operators - plain <= (by_row if granularity in {"tensor", "scaled"} else set())
    assert packed.proto.ir_version == 6
    assert packed.proto.opset_import[0].version == 11


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group", "scaled"])
def test_expanded_files_are_dense_and_compute_the_same(granularity: str, tmp_path: Path) -> None:
    packed, _ = both_ways(3, granularity)
    packed.save(tmp_path / "packed.onnx")
    command = [str(tmp_path / "packed.onnx"), "--output", str(tmp_path / "expanded.onnx")]
    assert expand.main(command) == 0
    expanded = onnx.load(tmp_path / "expanded.onnx")
    checker.check_model(expanded, full_check=True)
    assert all(
        tensor.data_type not in {TensorProto.UINT8, TensorProto.FLOAT16} for tensor in expanded.graph.initializer
    )
    assert not RESTORING & {node.op_type for node in expanded.graph.node}
    ids = {"ids": RANDOM.integers(0, 30, (3, 6))}
    session = onnxruntime.InferenceSession(expanded.SerializeToString())
    np.testing.assert_array_equal(session.run(None, ids)[0], packed.run(ids)[0])


def test_a_model_without_packed_weights_is_not_changed() -> None:
    proto = every_reader()
    before = proto.SerializeToString(deterministic=True)
    assert expand_proto(proto) == 0
    assert proto.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group", "scaled"])
def test_an_artifact_passes_the_gate_and_its_layers_are_seen(granularity: str) -> None:
    packed, dense = both_ways(4, granularity)
    gate.check(packed.proto)
    layers = {layer.name: layer for layer in packed.stored_layers()}
    for exact in dense.stored_layers():
        layer = layers[exact.name]
        assert layer.parameters == exact.parameters
        assert layer.weights is not None
        assert layer.bits < 32
        np.testing.assert_array_equal(np.sort(layer.weights, axis=None), np.sort(exact.weights, axis=None))


@pytest.mark.long
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group", "scaled"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_the_oldest_runtime_does_too(bits: int, granularity: str, oldest_runtime: Path, tmp_path: Path) -> None:
    packed, dense = both_ways(bits, granularity)
    packed.save(tmp_path / "packed.onnx")
    dense.save(tmp_path / "dense.onnx")
    exact, plain = run(tmp_path / "dense.onnx", "ORT_ENABLE_ALL", oldest_runtime)
    outputs, operators = run(tmp_path / "packed.onnx", "ORT_ENABLE_ALL", oldest_runtime)
    np.testing.assert_array_equal(outputs, exact)
    if granularity in {"channel", "group"}:
        assert operators <= plain
