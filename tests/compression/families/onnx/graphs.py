"""Small graphs around single operators, and both ways to compute them."""

from typing import Any

import numpy as np
import torch
from onnx import ModelProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper, shape_inference

from workers.compression.families.onnx.model import OnnxModel
from workers.compression.families.onnx.training.adapter import trainable_model
from workers.compression.families.trainable import Trainable

IR_VERSION = 10


def graph_of(
    nodes: list[Any],
    feeds: dict[str, np.ndarray],
    outputs: list[str],
    stored: dict[str, np.ndarray],
    opset: int = 21,
) -> OnnxModel:
    """A model of ``nodes``; the lengths of its inputs' axes are free."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info(
                name,
                helper.np_dtype_to_tensor_dtype(values.dtype),
                [f"{name}_{axis}" for axis in range(values.ndim)],
            )
            for name, values in feeds.items()
        ],
        [ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in stored.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    return OnnxModel(_typed(proto))


def _typed(proto: ModelProto) -> ModelProto:
    """The model with types and shapes of its outputs where they can be inferred, as exporters write them."""
    inferred = {value.name: value.type.tensor_type for value in shape_inference.infer_shapes(proto).graph.output}
    for output in proto.graph.output:
        output.type.tensor_type.CopyFrom(inferred[output.name])
        output.type.tensor_type.elem_type = inferred[output.name].elem_type or TensorProto.FLOAT
    return proto


def run_both(model: OnnxModel, feeds: dict[str, np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What onnxruntime and the module in ``eval()`` make of ``feeds``."""
    module = trainable_model(model).trainable().module.eval()
    return _reference(model, feeds), outputs_of(module, feeds)


def _reference(model: OnnxModel, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    names = [output.name for output in model.proto.graph.output]
    return model._open_session().run(names, feeds)


def outputs_of(module: torch.nn.Module, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The module's outputs, in the order of the graph's."""
    with torch.no_grad():
        return [output.numpy() for output in module(*(torch.from_numpy(values) for values in feeds.values()))]


def trainable_of(model: OnnxModel) -> Trainable:
    return trainable_model(model).trainable()


def check(proto: ModelProto) -> None:
    checker.check_model(proto, full_check=True)
