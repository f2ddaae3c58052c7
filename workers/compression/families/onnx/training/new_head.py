"""Gives a model a fresh last layer."""

import math

import torch
from onnx import ModelProto

from workers.compression.families.onnx.training.head import Head, StoredInput, find_head
from workers.compression.families.onnx.training.operators.call import DTYPES
from workers.compression.families.onnx.training.storing import overwrite
from workers.compression.families.onnx.walking import Index
from workers.compression.specs.errors import UnsupportedTechnique

_FIRST_IR_WITHOUT_INPUT_RULE = 4
"""Before it, every initializer had to be an input too."""


def replace_head(proto: ModelProto, outputs: int, seed: int) -> None:
    """Gives ``proto`` a last layer of ``outputs`` fresh outputs, in place.

    Weight and bias are drawn as torch draws those of its ``Linear``: uniformly within ±1/√inputs. With one output a
    softmax behind the layer is left out, for it would always give 1.

    Raises:
        UnsupportedTechnique: No last layer could be told, and why.
    """
    index = Index.of(proto)
    head = find_head(index)
    generator = torch.Generator().manual_seed(seed)
    inputs = _shape(index, head.weight)[1 - head.outputs_axis]
    bound = 1.0 / math.sqrt(max(inputs, 1))
    shape = [inputs, outputs] if head.outputs_axis == 1 else [outputs, inputs]
    _store(proto, index, head.weight, torch.empty(shape).uniform_(-bound, bound, generator=generator))
    if head.bias is not None:
        _store(proto, index, head.bias, torch.empty(outputs).uniform_(-bound, bound, generator=generator))
    for attribute in [found for found in head.product.node.attribute if found.name in {"alpha", "beta"}]:
        head.product.node.attribute.remove(attribute)
    if outputs == 1:
        _drop_softmax(head)
    _describe(proto, index, head, outputs)


def _shape(index: Index, found: StoredInput) -> list[int]:
    dims = [int(size) for size in index.stored[found.value].dims]
    return dims[::-1] if found.turned else dims


def _store(proto: ModelProto, index: Index, found: StoredInput, values: torch.Tensor) -> None:
    tensor = index.stored[found.value]
    if tensor.data_type not in DTYPES or not DTYPES[tensor.data_type].is_floating_point:
        raise UnsupportedTechnique(f"The last layer's weight {found.value.name[:200]!r} is not stored as floats.")
    if found.owned:
        overwrite(tensor, values.T if found.turned else values)
        for value in proto.graph.input:
            if value.name == found.value.name:
                for dim, size in zip(value.type.tensor_type.shape.dim, tensor.dims, strict=True):
                    dim.dim_value = size
        return
    fresh = proto.graph.initializer.add()
    fresh.data_type, fresh.name = tensor.data_type, _unused(index, f"{found.value.name}_head")
    overwrite(fresh, values)
    found.place.node.input[found.slot] = fresh.name
    proto.ir_version = max(proto.ir_version, _FIRST_IR_WITHOUT_INPUT_RULE)


def _unused(index: Index, name: str) -> str:
    taken = {known for scope in index.scopes for known in scope.defined}
    while name in taken:
        name += "_"
    return name


def _drop_softmax(head: Head) -> None:
    place = head.activation
    if place is not None and place.node.op_type != "Sigmoid":
        place.node.op_type = "Identity"
        del place.node.attribute[:]


def _describe(proto: ModelProto, index: Index, head: Head, outputs: int) -> None:
    """Sets the output's width; drops what the file says of the shapes of values that have changed."""
    dims = proto.graph.output[0].type.tensor_type.shape.dim
    if dims:
        dims[-1].dim_value = outputs
    changed = {name for place in head.chain for name in place.node.output}
    for found in (head.weight, head.bias):
        value = index.read(found.place, found.slot) if found is not None else None
        while found is not None and value is not None:
            changed.add(value.name)
            maker = index.makers.get(value)
            value = index.read(maker, 0) if maker is not None and value not in index.stored else None
    kept = [value for value in proto.graph.value_info if value.name not in changed]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
