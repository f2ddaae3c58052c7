"""ONNX files that contradict themselves, and files that only claim to be ONNX."""

import gzip
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
from onnx import AttributeProto, helper, numpy_helper

from tests.hostile.cases import READY
from tests.hostile.containers import zip_of
from tests.hostile.onnx_graphs import ONNX, graph_of, model_of, network, single_node, tensor, varint


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
    field = b"\xfa\x7f" + varint(len(archive.getvalue()))
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
