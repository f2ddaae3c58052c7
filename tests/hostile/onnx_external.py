"""ONNX files whose weights are said to lie somewhere else."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.hostile.containers import tar_of, zip_of
from tests.hostile.onnx_graphs import (
    FLOAT,
    ONNX,
    branching,
    external,
    graph_of,
    model_of,
    network,
    with_external,
)


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


@ONNX.refused("unsafe_model", "invalid_model", reason="onnx_*")
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
