"""A copy of a model without its large weights, for checks and shape inference that need no values."""

from onnx import GraphProto, ModelProto, TensorProto, helper

from workers.compression.families.onnx.walking import constant_value, numel

KEPT_ELEMENTS = 1024
"""Smaller tensors stay: shapes, axes and the like, whose values shape inference reads."""

_FIRST_IR_WITHOUT_INPUT_RULE = 4


def skeleton(proto: ModelProto) -> ModelProto:
    """``proto`` with each large stored tensor of the main graph turned into an input of its type and shape."""
    light = ModelProto()
    for field in ("ir_version", "producer_name", "model_version", "domain"):
        setattr(light, field, getattr(proto, field))
    light.ir_version = max(light.ir_version, _FIRST_IR_WITHOUT_INPUT_RULE)
    light.opset_import.extend(proto.opset_import)
    _copy_graph(proto.graph, light.graph)
    return light


def _copy_graph(source: GraphProto, target: GraphProto) -> None:
    target.name = source.name
    target.input.extend(source.input)
    target.output.extend(source.output)
    target.value_info.extend(source.value_info)
    target.sparse_initializer.extend(source.sparse_initializer)
    declared = {value.name for value in source.input}
    for tensor in source.initializer:
        if numel(tensor) <= KEPT_ELEMENTS:
            target.initializer.append(tensor)
        elif tensor.name not in declared:
            _declare(tensor, tensor.name, target)
    for node in source.node:
        value = constant_value(node)
        if value is None or numel(value) <= KEPT_ELEMENTS:
            target.node.append(node)
        else:
            _declare(value, node.output[0], target)


def _declare(tensor: TensorProto, name: str, target: GraphProto) -> None:
    target.input.append(helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)))
