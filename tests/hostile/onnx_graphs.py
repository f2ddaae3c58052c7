"""The ONNX catalogue, its accepted controls and the builders its other modules use."""

from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.hostile.cases import Catalogue
from tests.hostile.containers import zip_of

ONNX = Catalogue("onnx", "model", "model.onnx")

FLOAT = TensorProto.FLOAT
EXTERNAL = "unsafe_model"


def tensor(name: str, *shape: int) -> TensorProto:
    values = np.linspace(-1.0, 1.0, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    return numpy_helper.from_array(values, name)


def graph_of(nodes: list[NodeProto], initializers: list[TensorProto], output: str = "y", rank: int = 2) -> GraphProto:
    x = helper.make_tensor_value_info("x", FLOAT, ["n", 8])
    y = helper.make_tensor_value_info(output, FLOAT, [f"y{axis}" for axis in range(rank)])
    return helper.make_graph(nodes, "g", [x], [y], initializers)


def model_of(graph: GraphProto, *domains: str, opset: int = 17) -> ModelProto:
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def network() -> ModelProto:
    """A sound two-layer perceptron, the base of most cases."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["a"], name="activation"),
        helper.make_node("MatMul", ["a", "w2"], ["y"], name="second"),
    ]
    return model_of(graph_of(nodes, [tensor("w1", 8, 16), tensor("b1", 16), tensor("w2", 16, 4)]))


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def single_node(op: str, inputs: list[str], initializers: list[TensorProto], **attributes: object) -> bytes:
    node = helper.make_node(op, inputs, ["y"], **attributes)
    domains = [node.domain] if node.domain else []
    return model_of(graph_of([node], initializers), *domains).SerializeToString()


def external(location: str, name: str = "w2", shape: tuple[int, ...] = (16, 4), **extra: str) -> TensorProto:
    """A tensor whose bytes are said to lie in another file."""
    made = TensorProto(name=name, data_type=FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **extra}.items():
        made.external_data.add(key=key, value=value)
    return made


def with_external(location: str, **extra: str) -> ModelProto:
    model = network()
    model.graph.initializer[2].CopyFrom(external(location, **extra))
    return model


def branch(initializer: TensorProto) -> GraphProto:
    node = helper.make_node("MatMul", ["a", initializer.name], ["branch_out"])
    return helper.make_graph(
        [node], "branch", [], [helper.make_tensor_value_info("branch_out", FLOAT, None)], [initializer]
    )


def branching(then_weights: TensorProto) -> ModelProto:
    """The second layer stands inside both branches of an ``If``."""
    model = network()
    condition = numpy_helper.from_array(np.array(True), "condition")
    chosen = helper.make_node(
        "If", ["condition"], ["y"], then_branch=branch(then_weights), else_branch=branch(tensor("w3", 16, 4))
    )
    del model.graph.node[2], model.graph.initializer[2]
    model.graph.node.append(chosen)
    model.graph.initializer.append(condition)
    return model


@ONNX.accepted()
def perceptron(_: Path) -> bytes:
    return network().SerializeToString()


@ONNX.accepted()
def weights_in_an_if_branch(_: Path) -> bytes:
    return branching(tensor("w2", 16, 4)).SerializeToString()


@ONNX.accepted()
def weights_in_constant_nodes(_: Path) -> bytes:
    nodes = [
        helper.make_node("Constant", [], ["w"], value=tensor("w", 8, 4)),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    return model_of(graph_of(nodes, [])).SerializeToString()


@ONNX.accepted()
def contributed_op_of_the_runtime(_: Path) -> bytes:
    return single_node("FusedMatMul", ["x", "w"], [tensor("w", 8, 4)], domain="com.microsoft", alpha=0.5)


@ONNX.accepted("model.zip")
def external_data_beside_it_in_an_archive(_: Path) -> bytes:
    data = numpy_helper.to_array(tensor("w2", 16, 4)).tobytes()
    model = with_external("model.onnx_data", offset="0", length=str(len(data)))
    return zip_of({"model.onnx": model.SerializeToString(), "model.onnx_data": data})
