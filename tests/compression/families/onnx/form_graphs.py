"""Small graphs whose one weight is read in the ways that models read weights."""

from collections.abc import Callable

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from workers.compression.families.onnx.model import OnnxModel

Feeds = dict[str, np.ndarray]
Case = tuple[ModelProto, Feeds]
RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    """Weights of a trained layer's kind."""
    return RANDOM.standard_normal(shape).astype(np.float32)


def _model(
    nodes: list[NodeProto], weights: dict[str, np.ndarray], feeds: Feeds, rank: int = 2, opset: int = 13
) -> Case:
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(fed.dtype), [None] * fed.ndim)
            for name, fed in feeds.items()
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, ir_version=8, opset_imports=opsets), feeds


def product() -> Case:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")
    return _model([node], {"w": normal(50, 24)}, {"x": normal(3, 50)})


def batched_product() -> Case:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")
    return _model([node], {"w": normal(4, 40, 24)}, {"x": normal(4, 3, 40)}, 3)


def gemm() -> Case:
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="layer", transB=1)
    return _model([node], {"w": normal(48, 64), "b": normal(48)}, {"x": normal(3, 64)})


def convolution() -> Case:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="layer", pads=[1, 1, 1, 1])
    return _model([node], {"w": normal(16, 6, 3, 3)}, {"x": normal(2, 6, 9, 9)}, 4)


def transposed_convolution() -> Case:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], name="layer")
    return _model([node], {"w": normal(6, 10, 3, 3)}, {"x": normal(2, 6, 9, 9)}, 4)


def table() -> Case:
    node = helper.make_node("Gather", ["w", "x"], ["y"], name="layer")
    return _model([node], {"w": normal(100, 45)}, {"x": RANDOM.integers(-100, 100, (3, 5))}, 3)


def tied_table() -> Case:
    nodes = [
        helper.make_node("Gather", ["w", "x"], ["looked_up"], name="layer"),
        helper.make_node("Transpose", ["w"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["looked_up", "turned"], ["y"], name="projection"),
    ]
    return _model(nodes, {"w": normal(100, 48)}, {"x": RANDOM.integers(0, 100, (2, 6))}, 3)


def fused_table() -> Case:
    """onnxruntime's own operator for all tables of an encoder: it takes no packed ones."""
    names = ["ids", "segments", "w", "positions", "types", "gamma", "beta"]
    node = helper.make_node(
        "EmbedLayerNormalization", names, ["y", "mask"], name="layer", domain="com.microsoft", epsilon=1e-5
    )
    small = {"positions": normal(3, 64), "types": normal(2, 64), "gamma": normal(64), "beta": normal(64)}
    ids = RANDOM.integers(0, 90, (2, 3)).astype(np.int32)
    return _model([node], {"w": normal(90, 64), **small}, {"ids": ids, "segments": ids % 2}, 3)


def constant_node() -> Case:
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(normal(64, 32), "w")),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="layer"),
    ]
    return _model(nodes, {}, {"x": normal(3, 64)})


def branches() -> Case:
    """A branch with a weight of its own, another that reads one of the main graph."""
    main = helper.make_node("If", ["choice"], ["y"], then_branch=_branch("own"), else_branch=_branch("w"))
    return _model([main], {"w": normal(64, 32)}, {"x": normal(3, 64), "choice": np.array(True)})


def _branch(weight: str) -> GraphProto:
    own = [numpy_helper.from_array(normal(64, 32), weight)] if weight == "own" else []
    node = helper.make_node("MatMul", ["x", weight], [f"{weight}_y"], name=f"{weight}_layer")
    return helper.make_graph(
        [node], weight, [], [helper.make_tensor_value_info(f"{weight}_y", TensorProto.FLOAT, [None, 32])], own
    )


def recurrence() -> Case:
    node = helper.make_node(
        "LSTM", ["x", "w", "r"], ["", "", "y"], name="layer", hidden_size=16, direction="bidirectional"
    )
    return _model([node], {"w": normal(2, 64, 40), "r": normal(2, 64, 16)}, {"x": normal(5, 3, 40)}, 3)


def large_product() -> Case:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")
    return _model([node], {"w": normal(1050, 2000)}, {"x": normal(5, 1050)})


def large_gemm() -> Case:
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="layer", transB=1)
    return _model([node], {"w": normal(2048, 1100), "b": normal(2048)}, {"x": normal(5, 1100)})


def large_scaled_gemm() -> Case:
    """No plain product: its result is halved."""
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="layer", transB=1, alpha=0.5)
    return _model([node], {"w": normal(2048, 1100), "b": normal(2048)}, {"x": normal(5, 1100)})


CASES: dict[str, Callable[[], Case]] = {
    made.__name__: made
    for made in (
        product,
        batched_product,
        gemm,
        convolution,
        transposed_convolution,
        table,
        tied_table,
        fused_table,
        constant_node,
        branches,
        recurrence,
    )
}


def copied(proto: ModelProto) -> OnnxModel:
    """A model of its own."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    return OnnxModel(copy)


def check(model: OnnxModel) -> None:
    """The official checker's verdict."""
    checker.check_model(model.proto, full_check=True)
