"""Packed codes come out of the graph as they went in, and onnxruntime leaves nothing of the unpacking to run."""

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.unpacking import row_pieces, unpacked, unpacked_size
from workers.compression.families.onnx.walking import Value

SHAPES = [(7, 5), (64, 48), (9, 3, 3, 3), (1,)]


def restoring(codes: np.ndarray, bits: int, to: int) -> ModelProto:
    """Adds the unpacked codes to its input, at the oldest opset and file version that the unpacking works in."""
    dtype = helper.tensor_dtype_to_np_dtype(to)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "weight"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", to, [1])],
        [helper.make_tensor_value_info("y", to, list(codes.shape))],
        [numpy_helper.from_array(codes.astype(dtype), "weight")],
    )
    proto = helper.make_model(graph, ir_version=6, opset_imports=[helper.make_opsetid("", 11)])
    editor = Editor(proto)
    value = Value(editor.index.scopes[0], "weight")
    nodes, made = unpacked(editor, value.scope, "weight", codes, bits, to)
    editor.replace_stored(value, [*nodes, helper.make_node("Identity", [made], ["weight"])])
    editor.apply()
    checker.check_model(proto, full_check=True)
    return proto


@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_ALL"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_of_every_width_fold_to_what_they_were(bits: int, level: str, tmp_path: Path) -> None:
    random = np.random.default_rng(bits)
    for shape in SHAPES:
        codes = random.integers(0, 1 << bits, shape).astype(np.uint8)
        for to in (TensorProto.INT32, TensorProto.FLOAT):
            proto = restoring(codes, bits, to)
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
            options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
            session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
            (outputs,) = session.run(None, {"x": np.zeros(1, helper.tensor_dtype_to_np_dtype(to))})
            np.testing.assert_array_equal(outputs, codes)
            left = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
            assert left == ["Add"]


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_width_takes_just_its_bits(bits: int) -> None:
    codes = np.arange(64 * 48, dtype=np.int64).reshape(64, 48) % (1 << bits)
    stored = restoring(codes.astype(np.uint8), bits, TensorProto.INT32).graph.initializer
    packed = sum(len(tensor.raw_data) for tensor in stored if tensor.name.startswith("weight_packed"))
    assert packed == unpacked_size(64 * 48, bits) == 64 * 48 * bits // 8


def test_pieces_cover_all_rows_and_keep_values_below_the_limit() -> None:
    pieces = row_pieces((300_000, 1024))
    assert pieces[0].start == 0
    assert pieces[-1].stop == 300_000
    assert all(left.stop == right.start for left, right in itertools.pairwise(pieces))
    assert all((piece.stop - piece.start) * 1024 * 4 <= 256 << 20 for piece in pieces)
    assert row_pieces((2, 1 << 40)) == [slice(0, 1), slice(1, 2)]
