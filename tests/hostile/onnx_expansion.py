"""ONNX files of a few hundred bytes that would fill memory when they are loaded, and honest ones that expand a little.

onnxruntime computes at load whatever depends on stored tensors alone, so each of these does its damage before the
model is ever run.
"""

from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.hostile.onnx_graphs import FLOAT, ONNX, graph_of, model_of, tensor
from workers.compression.context import Context
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.registry import handler_for
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.quantize_weights import KmeansQuantize

GIBIBYTE = 1 << 30


def integers(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def summed(nodes: list[NodeProto], large: list[str], stored: list[TensorProto]) -> bytes:
    """A model that needs the sum of each large value, so that none of them may be left out."""
    total = "x"
    for index, name in enumerate(large):
        nodes += [
            helper.make_node("ReduceSum", [name], [f"sum{index}"], keepdims=0),
            helper.make_node("Add", [total, f"sum{index}"], [f"total{index}"]),
        ]
        total = f"total{index}"
    nodes.append(helper.make_node("Identity", [total], ["y"]))
    return model_of(graph_of(nodes, stored)).SerializeToString()


@ONNX.refused("too_large", reason="onnx_expansion_too_large")
def filled_with_zeros(_: Path) -> bytes:
    names = [f"large{index}" for index in range(8)]
    nodes = [helper.make_node("ConstantOfShape", ["shape"], [name]) for name in names]
    return summed(nodes, names, [integers("shape", GIBIBYTE // 16)])


@ONNX.refused("too_large", reason="onnx_expansion_too_large")
def expanded_from_one_number(_: Path) -> bytes:
    node = helper.make_node("Expand", ["one", "shape"], ["large"])
    return summed([node], ["large"], [tensor("one", 1), integers("shape", 1024, 1024, 512)])


@ONNX.refused("too_large", reason="onnx_expansion_too_large")
def tiled_over_and_over(_: Path) -> bytes:
    nodes = [helper.make_node("Tile", [f"t{step}", "repeats"], [f"t{step + 1}"]) for step in range(9)]
    return summed(nodes, ["t9"], [tensor("t0", 1), integers("repeats", 10)])


@ONNX.refused("too_large", reason="onnx_expansion_too_large")
def concatenated_with_itself(_: Path) -> bytes:
    nodes = [helper.make_node("Concat", [f"c{step}"] * 8, [f"c{step + 1}"], axis=0) for step in range(10)]
    return summed(nodes, ["c10"], [tensor("c0", 1)])


@ONNX.refused("too_large", reason="onnx_*too_large")
def looked_up_by_indices_that_are_looked_up(_: Path) -> bytes:
    nodes = [helper.make_node("Gather", ["zeros", "zeros"], ["g0"], axis=0)]
    nodes += [helper.make_node("Gather", ["zeros", f"g{step}"], [f"g{step + 1}"], axis=0) for step in range(3)]
    stored = [numpy_helper.from_array(np.zeros((64, 64), np.int64), "zeros")]
    nodes.append(helper.make_node("Cast", ["g3"], ["large"], to=FLOAT))
    return summed(nodes, ["large"], stored)


@ONNX.refused("too_large", reason="onnx_expansion_too_large")
def broadcast_against_itself(_: Path) -> bytes:
    nodes = [
        helper.make_node("Reshape", ["row", "upright"], ["column"]),
        helper.make_node("Add", ["row", "column"], ["large"]),
    ]
    row = numpy_helper.from_array(np.zeros(24_000, np.float32), "row")
    return summed(nodes, ["large"], [row, integers("upright", -1, 1)])


@ONNX.refused("too_large", reason="onnx_expansion_too_large")
def multiplied_into_a_large_matrix(_: Path) -> bytes:
    nodes = [helper.make_node("MatMul", ["column", "row"], ["large"])]
    return summed(nodes, ["large"], [tensor("column", 30_000, 1), tensor("row", 1, 30_000)])


@ONNX.refused("too_large", reason="onnx_*too_large")
def counted_up(_: Path) -> bytes:
    stored = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in
              (("start", 0), ("limit", GIBIBYTE), ("delta", 1))]  # fmt: skip
    nodes = [
        helper.make_node("Range", ["start", "limit", "delta"], ["many"]),
        helper.make_node("Cast", ["many"], ["large"], to=FLOAT),
    ]
    return summed(nodes, ["large"], stored)


@ONNX.refused("too_large", reason="onnx_expansion_too_large")
def counted_up_to_a_product(_: Path) -> bytes:
    stored = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in
              (("start", 0), ("some", 32_768), ("delta", 1))]  # fmt: skip
    nodes = [
        helper.make_node("Mul", ["some", "some"], ["limit"]),
        helper.make_node("Range", ["start", "limit", "delta"], ["many"]),
        helper.make_node("Cast", ["many"], ["large"], to=FLOAT),
    ]
    return summed(nodes, ["large"], stored)


@ONNX.refused("too_large", reason="onnx_expansion_too_large")
def size_worked_out_from_constants(_: Path) -> bytes:
    nodes = [
        helper.make_node("NonZero", ["mask"], ["places"]),
        helper.make_node("ReduceMax", ["places"], ["length"], axes=[1], keepdims=0),
        helper.make_node("Mul", ["length", "thousands"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["large"]),
    ]
    mask = numpy_helper.from_array(np.ones(1024, bool), "mask")
    return summed(nodes, ["large"], [mask, integers("thousands", 2 << 20)])


@ONNX.refused("too_large", reason="onnx_expansion_too_large")
def size_read_off_a_shape(_: Path) -> bytes:
    nodes = [
        helper.make_node("Shape", ["small"], ["shape"]),
        helper.make_node("Mul", ["shape", "thousands"], ["larger"]),
        helper.make_node("ConstantOfShape", ["larger"], ["large"]),
    ]
    return summed(nodes, ["large"], [tensor("small", 64, 64), integers("thousands", 512, 512)])


@ONNX.refused("too_large", reason="onnx_expansion_too_large")
def codes_that_are_looked_up_wider_and_wider(_: Path) -> bytes:
    """The chain that restores packed weights, but each code stands for a row of a codebook's rows."""
    stored = [
        numpy_helper.from_array(np.zeros((4096, 1), np.uint8), "packed"),
        numpy_helper.from_array(np.array([4, 0], np.uint8), "left"),
        numpy_helper.from_array(np.array([4], np.uint8), "right"),
        tensor("book", 16, 64, 64, 4),
    ]
    nodes = [
        helper.make_node("BitShift", ["packed", "left"], ["raised"], direction="LEFT"),
        helper.make_node("BitShift", ["raised", "right"], ["bytes"], direction="RIGHT"),
        helper.make_node("Cast", ["bytes"], ["codes"], to=TensorProto.INT32),
        helper.make_node("Gather", ["book", "codes"], ["wide"]),
        helper.make_node("Concat", ["wide"] * 4, ["large"], axis=0),
    ]
    return summed(nodes, ["large"], stored)


@ONNX.refused("too_large", reason="onnx_expansion_too_large")
def inside_both_branches(_: Path) -> bytes:
    def branch(name: str) -> GraphProto:
        nodes = [
            helper.make_node("Expand", ["one", "shape"], [f"{name}_large"]),
            helper.make_node("ReduceSum", [f"{name}_large"], [f"{name}_sum"], keepdims=0),
        ]
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}_sum", FLOAT, [])])

    condition = numpy_helper.from_array(np.array(True), "condition")
    nodes = [
        helper.make_node("If", ["condition"], ["sum"], then_branch=branch("then"), else_branch=branch("else")),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    stored = [condition, tensor("one", 1), integers("shape", 1024, 1024, 200)]
    return model_of(graph_of(nodes, stored)).SerializeToString()


@ONNX.refused("too_large", reason="onnx_*too_large")
def padded_far_out(_: Path) -> bytes:
    node = helper.make_node("Pad", ["one", "pads"], ["large"])
    return summed([node], ["large"], [tensor("one", 1), integers("pads", 0, GIBIBYTE)])


@ONNX.refused("too_large", reason="onnx_*too_large")
def resized(_: Path) -> bytes:
    node = helper.make_node("Resize", ["one", "", "", "sizes"], ["large"])
    return summed([node], ["large"], [tensor("one", 1, 1, 2, 2), integers("sizes", 1, 1, 32_768, 32_768)])


@ONNX.refused("too_large", "invalid_model", reason="onnx_*")
def rolled_dice(_: Path) -> bytes:
    nodes = [helper.make_node("RandomNormal", [], [f"large{index}"], shape=[1024, 1024, 100]) for index in range(4)]
    return summed(nodes, [f"large{index}" for index in range(4)], [])


@ONNX.accepted()
def mask_made_of_a_shape(_: Path) -> bytes:
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["mask"])]
    return summed(nodes, ["mask"], [integers("shape", 2048, 2048)])


@ONNX.accepted()
def our_own_codebooks(folder: Path) -> bytes:
    """What the service itself makes of a perceptron may be uploaded as a model."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "w2"], ["y"]),
    ]
    model = OnnxModel(model_of(graph_of(nodes, [tensor("w1", 8, 1000), tensor("w2", 1000, 400)])))
    handler_for(KmeansQuantize, ModelFormat.ONNX)(model, KmeansQuantize(bits=3), Context(scratch=folder.parent))
    return model.serialized()


def perceptron(random: np.random.Generator) -> OnnxModel:
    """Two products by weights that are mostly zero."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "w2"], ["y"]),
    ]
    shapes = {"w1": (8, 1000), "w2": (1000, 400)}
    weights = [
        numpy_helper.from_array(np.where(random.random(shape) < 0.05, np.float32(0.5), np.float32(0.0)), name)
        for name, shape in shapes.items()
    ]
    model = OnnxModel(model_of(graph_of(nodes, weights)))
    model.leave_out_zeros()
    return model


def saved(model: OnnxModel, folder: Path) -> ModelProto:
    path = folder / "saved.onnx"
    model.save(path)
    return ModelProto.FromString(path.read_bytes())


@ONNX.accepted()
def our_own_sparse_weights(folder: Path) -> bytes:
    return saved(perceptron(np.random.default_rng(0)), folder.parent).SerializeToString()


@ONNX.refused("too_large", reason="onnx_expansion_too_large|onnx_value_too_large")
def few_values_among_far_too_many_zeros(folder: Path) -> bytes:
    proto = saved(perceptron(np.random.default_rng(0)), folder.parent)
    lengths = {node.input[1] for node in proto.graph.node if node.op_type == "Expand"}
    for stored in proto.graph.initializer:
        if stored.name in lengths:
            stored.CopyFrom(integers(stored.name, 60_000_000))
    return proto.SerializeToString()


@ONNX.refused("invalid_model", reason="onnx_invalid")
def values_outside_the_weight(folder: Path) -> bytes:
    proto = saved(perceptron(np.random.default_rng(0)), folder.parent)
    for stored in proto.graph.initializer:
        if "steps_packed" in stored.name:
            steps = numpy_helper.to_array(stored)
            stored.CopyFrom(numpy_helper.from_array(np.full_like(steps, 255), stored.name))
    return proto.SerializeToString()
