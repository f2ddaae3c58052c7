"""ONNX files that lie, escape, hide operators or explode."""

import gzip
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.hostile.cases import READY, Catalogue
from tests.hostile.containers import tar_of, zip_of

ONNX = Catalogue("onnx", "model", "model.onnx")

FLOAT = TensorProto.FLOAT
EXTERNAL = "unsafe_model"


def tensor(name: str, *shape: int) -> TensorProto:
    values = np.linspace(-1.0, 1.0, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    return numpy_helper.from_array(values, name)


def graph_of(nodes: list[NodeProto], initializers: list[TensorProto], output: str = "y") -> GraphProto:
    x = helper.make_tensor_value_info("x", FLOAT, ["n", 8])
    y = helper.make_tensor_value_info(output, FLOAT, None)
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


def _branch(initializer: TensorProto) -> GraphProto:
    node = helper.make_node("MatMul", ["a", initializer.name], ["branch_out"])
    return helper.make_graph(
        [node], "branch", [], [helper.make_tensor_value_info("branch_out", FLOAT, None)], [initializer]
    )


def branching(then_weights: TensorProto) -> ModelProto:
    """The second layer stands inside both branches of an ``If``."""
    model = network()
    condition = numpy_helper.from_array(np.array(True), "condition")
    chosen = helper.make_node(
        "If", ["condition"], ["y"], then_branch=_branch(then_weights), else_branch=_branch(tensor("w3", 16, 4))
    )
    del model.graph.node[2]
    model.graph.node.append(chosen)
    model.graph.initializer.append(condition)
    return model


# --- accepted controls ------------------------------------------------------------------------------------------------


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


# --- external data ----------------------------------------------------------------------------------------------------


@ONNX.refused("unsafe_model", reason="onnx_external_data")
def external_absolute_path(_: Path) -> bytes:
    return with_external("/etc/passwd", offset="0", length="256").SerializeToString()


@ONNX.refused("unsafe_model", reason="onnx_external_data")
def external_parent_path(_: Path) -> bytes:
    return with_external("../../../../etc/passwd").SerializeToString()


@ONNX.refused("unsafe_model", "invalid_model", reason="onnx_external_data")
def external_file_that_did_not_come_along(_: Path) -> bytes:
    return with_external("weights.bin").SerializeToString()


@ONNX.refused("unsafe_model", "invalid_model", reason="onnx_external_data")
def external_without_a_location(_: Path) -> bytes:
    model = network()
    model.graph.initializer[2].CopyFrom(TensorProto(name="w2", data_type=FLOAT, dims=(16, 4), data_location=1))
    return model.SerializeToString()


@ONNX.refused("unsafe_model", reason="onnx_external_data")
def external_in_an_if_branch(_: Path) -> bytes:
    return branching(external("../secret.bin")).SerializeToString()


@ONNX.refused("unsafe_model", reason="onnx_external_data")
def external_in_a_constant_node(_: Path) -> bytes:
    nodes = [
        helper.make_node("Constant", [], ["w"], value=external("/etc/hostname", "w", (8, 4))),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    return model_of(graph_of(nodes, [])).SerializeToString()


@ONNX.refused("unsafe_model", reason="onnx_external_data")
def external_in_a_sparse_initializer(_: Path) -> bytes:
    model = network()
    sparse = model.graph.sparse_initializer.add()
    sparse.dims.extend([4, 4])
    sparse.values.CopyFrom(external("/etc/passwd", "sparse", (2,)))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([0, 5], np.int64), "indices"))
    return model.SerializeToString()


@ONNX.refused("unsafe_model", reason="onnx_external_data|onnx_functions_refused")
def external_in_a_function_body(_: Path) -> bytes:
    model = network()
    model.functions.append(
        helper.make_function(
            "local",
            "Hidden",
            ["a"],
            ["b"],
            [
                helper.make_node("Constant", [], ["c"], value=external("/etc/passwd", "c", (1,))),
                helper.make_node("Add", ["a", "c"], ["b"]),
            ],
            [helper.make_opsetid("", 17)],
        )
    )
    return model.SerializeToString()


@ONNX.refused("unsafe_model", reason="onnx_external_data|onnx_training*")
def external_in_training_info(_: Path) -> bytes:
    model = network()
    model.training_info.add().algorithm.initializer.append(external("/etc/passwd"))
    return model.SerializeToString()


@ONNX.refused("unsafe_model", reason="onnx_external_data")
def external_memory_address_marker(_: Path) -> bytes:
    return with_external("*/_ORT_MEM_ADDR_/*", offset="4096", length="256").SerializeToString()


@ONNX.refused("unsafe_model", "invalid_model", reason="archive_*|onnx_external_data", filename="model.tar.gz")
def external_data_is_a_hard_link(_: Path) -> bytes:
    model = with_external("weights.bin", offset="0", length="256").SerializeToString()
    return tar_of({"model.onnx": model}, links={"weights.bin": ("hard", "/etc/passwd")})


@ONNX.refused("unsafe_model", reason="onnx_external_data", filename="model.zip")
def external_data_outside_its_archive(_: Path) -> bytes:
    model = with_external("../weights.bin", offset="0", length="256").SerializeToString()
    return zip_of({"model.onnx": model, "weights.bin": bytes(256)})


@ONNX.refused("invalid_model", "unsafe_model", reason="onnx_*", filename="model.zip")
def external_range_beyond_its_file(_: Path) -> bytes:
    model = with_external("weights.bin", offset="128", length="256").SerializeToString()
    return zip_of({"model.onnx": model, "weights.bin": bytes(256)})


@ONNX.refused("invalid_model", "unsafe_model", reason="onnx_*", filename="model.zip")
def external_offset_is_negative(_: Path) -> bytes:
    model = with_external("weights.bin", offset="-64", length="256").SerializeToString()
    return zip_of({"model.onnx": model, "weights.bin": bytes(512)})


@ONNX.refused("invalid_model", "unsafe_model", reason="onnx_*", filename="model.zip")
def external_data_is_the_model_itself(_: Path) -> bytes:
    return zip_of({"model.onnx": with_external("model.onnx", offset="0", length="99999").SerializeToString()})


# --- operators and functions ------------------------------------------------------------------------------------------


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


# --- size and shape bombs ---------------------------------------------------------------------------------------------


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
    return head.SerializeToString() + b"\x3a" + _varint(len(graph)) + graph


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@ONNX.refused("unsafe_model", "too_large", "invalid_model", reason="onnx_*")
def ifs_nested_20_deep(_: Path) -> bytes:
    inner = _branch(tensor("w2", 16, 4))
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
            nested = tag + _varint(len(nested)) + nested
    head = network()
    head.ClearField("graph")
    return head.SerializeToString() + b"\x3a" + _varint(len(nested)) + nested


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
    return single_node("Expand", ["x", "shape"], [shape])


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


# --- structure --------------------------------------------------------------------------------------------------------


@ONNX.refused("invalid_model", reason="onnx_invalid")
def truncated(_: Path) -> bytes:
    content = network().SerializeToString()
    return content[: len(content) * 2 // 3]


@ONNX.refused("invalid_model", reason="onnx_*")
def cycle(_: Path) -> bytes:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    return model_of(graph_of(nodes, [], output="b")).SerializeToString()


@ONNX.refused("invalid_model", reason="onnx_*")
def input_from_nowhere(_: Path) -> bytes:
    return single_node("Add", ["x", "missing"], [])


@ONNX.refused("invalid_model", reason="onnx_*")
def two_initializers_of_one_name(_: Path) -> bytes:
    model = network()
    model.graph.initializer.append(tensor("w2", 16, 4))
    return model.SerializeToString()


@ONNX.refused("invalid_model", reason="onnx_*")
def two_nodes_write_one_value(_: Path) -> bytes:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["y"])]
    return model_of(graph_of(nodes, [])).SerializeToString()


@ONNX.refused("invalid_model", reason="onnx_*")
def no_opset(_: Path) -> bytes:
    model = network()
    del model.opset_import[:]
    return model.SerializeToString()


@ONNX.refused("invalid_model", "unsafe_model", reason="onnx_*")
def opset_of_the_far_future(_: Path) -> bytes:
    model = network()
    model.opset_import[0].version = 1 << 40
    return model.SerializeToString()


@ONNX.refused("invalid_model", reason="onnx_*")
def raw_and_typed_data_at_once(_: Path) -> bytes:
    model = network()
    model.graph.initializer[2].float_data.extend([1.0] * 64)
    return model.SerializeToString()


@ONNX.refused("invalid_model", reason="onnx_*")
def sparse_index_out_of_range(_: Path) -> bytes:
    model = network()
    sparse = model.graph.sparse_initializer.add()
    sparse.dims.extend([4, 4])
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(2, np.float32), "sparse"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([0, 1 << 40], np.int64), "indices"))
    return model.SerializeToString()


@ONNX.refused("invalid_model", reason="onnx_*")
def attribute_that_refers_outside_any_function(_: Path) -> bytes:
    model = network()
    model.graph.node[0].attribute.append(AttributeProto(name="alpha", type=1, ref_attr_name="anything"))
    return model.SerializeToString()


def _trees(**changed: list[int]) -> bytes:
    attributes: dict[str, object] = {
        "n_targets": 1,
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [3, 0, 0],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
        "target_weights": [1.0, -1.0],
        **changed,
    }
    return single_node("TreeEnsembleRegressor", ["x"], [], domain="ai.onnx.ml", **attributes)


@ONNX.accepted()
def tree_ensemble(_: Path) -> bytes:
    return _trees()


@ONNX.refused("invalid_model", reason="onnx_*")
def tree_child_out_of_range(_: Path) -> bytes:
    return _trees(nodes_truenodeids=[1 << 30, 0, 0])


@ONNX.refused("invalid_model", reason="onnx_*")
def tree_that_is_its_own_child(_: Path) -> bytes:
    return _trees(nodes_truenodeids=[0, 0, 0])


@ONNX.refused("invalid_model", reason="onnx_*")
def tree_attributes_of_unequal_length(_: Path) -> bytes:
    return _trees(nodes_featureids=[3])


@ONNX.refused("invalid_model", reason="onnx_*")
def tree_feature_is_negative(_: Path) -> bytes:
    return _trees(nodes_featureids=[-(1 << 40), 0, 0])


# --- disguises --------------------------------------------------------------------------------------------------------


@ONNX.refused("unsupported_format", "invalid_model")
def zero_bytes(_: Path) -> bytes:
    return b""


@ONNX.refused("unsupported_format", "invalid_model")
def pointer_of_large_file_storage(_: Path) -> bytes:
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 90261504\n"


@ONNX.refused("unsupported_format", "invalid_model")
def inside_gzip(_: Path) -> bytes:
    return gzip.compress(network().SerializeToString())


@ONNX.refused("unsupported_format", "invalid_model")
def random_bytes(_: Path) -> bytes:
    return np.random.default_rng(0).bytes(4096)


@ONNX.refused("invalid_model", "unsupported_format", "unsafe_model", READY)
def polyglot_with_a_zip_in_an_unknown_field(_: Path) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02cos\nsystem\n.")
    field = b"\xfa\x7f" + _varint(len(archive.getvalue()))
    return network().SerializeToString() + field + archive.getvalue()


@ONNX.refused("invalid_model", READY)
def weights_that_are_nan(_: Path) -> bytes:
    model = network()
    model.graph.initializer[2].raw_data = struct.pack("<f", float("nan")) * 64
    return model.SerializeToString()


@ONNX.refused("invalid_model", "unsafe_model", READY)
def names_with_paths_markup_and_control_characters(_: Path) -> bytes:
    model = network()
    model.graph.node[0].name = "../../<script>alert(1)</script>\u202e\x07"
    return model.SerializeToString()


@ONNX.refused("invalid_model", "unsupported_format", "unsafe_model", reason="", filename="model.zip")
def two_models_in_one_archive(_: Path) -> bytes:
    content = network().SerializeToString()
    return zip_of({"a.onnx": content, "b.onnx": content})
