"""ONNX files with operators, functions and loops that must not run, and shapes that explode."""

from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, TensorProto, helper, numpy_helper

from tests.hostile.cases import READY
from tests.hostile.onnx_graphs import (
    FLOAT,
    ONNX,
    branch,
    branching,
    graph_of,
    model_of,
    network,
    single_node,
    tensor,
    varint,
)


@ONNX.refused("unsafe_model", reason="onnx_domain_refused|onnx_op_refused")
def operator_of_an_unknown_domain(_: Path) -> bytes:
    return single_node("Payload", ["x"], [], domain="evil.example")


@ONNX.refused("unsafe_model", reason="onnx_domain_refused|onnx_op_refused")
def python_operator(_: Path) -> bytes:
    return single_node("PyOp", ["x"], [], domain="ai.onnx.contrib", module="os", compute="system")


@ONNX.refused("unsafe_model", reason="onnx_domain_refused|onnx_op_refused")
def execution_provider_context_from_a_file(_: Path) -> bytes:
    return single_node(
        "EPContext", ["x"], [], domain="com.microsoft", embed_mode=0, ep_cache_context="/etc/passwd", main_context=1
    )


@ONNX.refused("unsafe_model", reason="onnx_domain_refused|onnx_op_refused")
def unknown_domain_inside_an_if_branch(_: Path) -> bytes:
    model = branching(tensor("w2", 16, 4))
    branch = model.graph.node[2].attribute[0].g
    branch.node[0].domain = "evil.example"
    return model.SerializeToString()


@ONNX.refused("unsafe_model", "invalid_model", reason="onnx_*")
def operator_that_does_not_exist(_: Path) -> bytes:
    return single_node("Teleport", ["x"], [])


def _function(name: str, calls: str, times: int) -> onnx.FunctionProto:
    names = ["a", *(f"v{index}" for index in range(times))]
    domain = "" if calls == "Relu" else "local"
    nodes = [helper.make_node(calls, [names[i]], [names[i + 1]], domain=domain) for i in range(times)]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["a"], [names[-1]], nodes, imports)


@ONNX.refused("too_large", "unsafe_model", reason="onnx_functions_refused|onnx_too_many_nodes")
def functions_that_double_25_times(_: Path) -> bytes:
    model = model_of(graph_of([helper.make_node("F25", ["x"], ["y"], domain="local")], []), "local")
    model.functions.append(_function("F0", "Relu", 1))
    for level in range(1, 26):
        model.functions.append(_function(f"F{level}", f"F{level - 1}", 2))
    return model.SerializeToString()


@ONNX.refused("unsafe_model", "invalid_model", "too_large", reason="onnx_*")
def function_that_calls_itself(_: Path) -> bytes:
    model = model_of(graph_of([helper.make_node("F", ["x"], ["y"], domain="local")], []), "local")
    model.functions.append(_function("F", "F", 1))
    return model.SerializeToString()


@ONNX.refused("unsafe_model", "too_large", "invalid_model", reason="onnx_*")
def function_that_shadows_a_standard_operator(_: Path) -> bytes:
    model = network()
    shadow = helper.make_function(
        "", "Relu", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    model.functions.append(shadow)
    return model.SerializeToString()


def _loop_body() -> GraphProto:
    nodes = [
        helper.make_node("Identity", ["keep_in"], ["keep"]),
        helper.make_node("Sin", ["state_in"], ["state"]),
        helper.make_node("Identity", ["state"], ["scan"]),
    ]
    scalar = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("keep_in", 9, []),
    ]
    state = helper.make_tensor_value_info("state_in", FLOAT, None)
    outputs = [
        helper.make_tensor_value_info("keep", 9, []),
        helper.make_tensor_value_info("state", FLOAT, None),
        helper.make_tensor_value_info("scan", FLOAT, None),
    ]
    return helper.make_graph(nodes, "body", [*scalar, state], outputs)


@ONNX.refused("unsafe_model", "too_large", reason="onnx_op_refused")
def loop_of_2_to_the_62_trips(_: Path) -> bytes:
    trips = numpy_helper.from_array(np.array(1 << 62), "trips")
    condition = numpy_helper.from_array(np.array(True), "condition")
    node = helper.make_node("Loop", ["trips", "condition", "x"], ["final", "y"], body=_loop_body())
    return model_of(graph_of([node], [trips, condition])).SerializeToString()


@ONNX.refused("unsafe_model", "too_large", reason="onnx_op_refused")
def scan(_: Path) -> bytes:
    body = helper.make_graph(
        [helper.make_node("Sin", ["row"], ["out"])],
        "body",
        [helper.make_tensor_value_info("row", FLOAT, None)],
        [helper.make_tensor_value_info("out", FLOAT, None)],
    )
    node = helper.make_node("Scan", ["x"], ["y"], body=body, num_scan_inputs=1)
    return model_of(graph_of([node], [])).SerializeToString()


@ONNX.refused("too_large", reason="onnx_too_many_nodes")
def chain_of_200_000_nodes(_: Path) -> bytes:
    # Written as raw protobuf: the helper classes need seconds for as many nodes.
    base = graph_of([], [], output="v200000")
    nodes = bytearray()
    for index in range(200_000):
        source = b"x" if index == 0 else b"v%d" % index
        target = b"v%d" % (index + 1)
        body = b"\x0a%c%s\x12%c%s\x22\x04Relu" % (len(source), source, len(target), target)
        nodes += b"\x0a%c%s" % (len(body), body)
    graph = bytes(nodes) + base.SerializeToString()
    head = model_of(GraphProto())
    head.ClearField("graph")
    return head.SerializeToString() + b"\x3a" + varint(len(graph)) + graph


@ONNX.refused("unsafe_model", "too_large", "invalid_model", reason="onnx_*")
def ifs_nested_20_deep(_: Path) -> bytes:
    inner = branch(tensor("w2", 16, 4))
    for _level in range(20):
        node = helper.make_node("If", ["condition"], ["branch_out"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph([node], "b", [], [helper.make_tensor_value_info("branch_out", FLOAT, None)])
        if inner.ByteSize() > 1 << 20:
            break
    model = branching(tensor("w2", 16, 4))
    model.graph.node[2].attribute[0].g.CopyFrom(inner)
    return model.SerializeToString()


@ONNX.refused("invalid_model", reason="onnx_invalid")
def protobuf_nested_5000_deep(_: Path) -> bytes:
    # GraphProto.node = 1, NodeProto.attribute = 5, AttributeProto.g = 6
    nested = b""
    for _level in range(5000):
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            nested = tag + varint(len(nested)) + nested
    head = network()
    head.ClearField("graph")
    return head.SerializeToString() + b"\x3a" + varint(len(nested)) + nested


@ONNX.refused("invalid_model", "too_large", reason="onnx_invalid|tensor_too_large")
def dimensions_that_overflow(_: Path) -> bytes:
    model = network()
    del model.graph.initializer[2].dims[:]
    model.graph.initializer[2].dims.extend([1 << 40, 1 << 40])
    return model.SerializeToString()


@ONNX.refused("invalid_model", reason="onnx_invalid")
def fewer_bytes_than_the_shape_says(_: Path) -> bytes:
    model = network()
    model.graph.initializer[2].raw_data = bytes(8)
    return model.SerializeToString()


@ONNX.refused("invalid_model", reason="onnx_invalid")
def negative_dimension(_: Path) -> bytes:
    model = network()
    model.graph.initializer[2].dims[0] = -16
    return model.SerializeToString()


@ONNX.refused("too_large", "invalid_model", "unsafe_model", READY)
def constant_of_shape_bomb(_: Path) -> bytes:
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 20], np.int64), "shape")
    return single_node("ConstantOfShape", ["shape"], [shape], value=numpy_helper.from_array(np.ones(1, np.float32)))


@ONNX.refused("too_large", "invalid_model", "unsafe_model", READY)
def expand_bomb(_: Path) -> bytes:
    shape = numpy_helper.from_array(np.array([1 << 16, 1 << 16, 1, 8], np.int64), "shape")
    node = helper.make_node("Expand", ["x", "shape"], ["y"])
    return model_of(graph_of([node], [shape], rank=4)).SerializeToString()


@ONNX.refused("too_large", "invalid_model", "unsafe_model", READY)
def tile_chain_bomb(_: Path) -> bytes:
    repeats = numpy_helper.from_array(np.array([1, 64], np.int64), "repeats")
    names = ["x", *(f"t{index}" for index in range(8)), "y"]
    nodes = [helper.make_node("Tile", [names[i], "repeats"], [names[i + 1]]) for i in range(9)]
    return model_of(graph_of(nodes, [repeats])).SerializeToString()


@ONNX.refused("too_large", "invalid_model", READY)
def metadata_of_eight_megabytes(_: Path) -> bytes:
    model = network()
    model.metadata_props.add(key="note", value="x" * (8 << 20))
    return model.SerializeToString()
