"""What the function of an operator is told besides its inputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from onnx import NodeProto, TensorProto, helper

from workers.compression.families.onnx.walking import array, layer_name
from workers.compression.specs.errors import UnsupportedOperator

Tensor = torch.Tensor
Result = Tensor | tuple[Tensor, ...]
Function = Callable[..., Result]
"""Takes a ``Call``, then the node's inputs in order, None for an omitted one; gives its output or outputs."""
Table = Mapping[str, Function]

DTYPES: Mapping[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float32,
    TensorProto.BFLOAT16: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}
"""Half precision is computed, and weights stored in it are learned, in float32."""


@dataclass(frozen=True)
class Call:
    """A node without its inputs.

    Args:
        operator: Its name as in the table.
        name: The node's.
        opset: Version of the operator set that it is written in.
        attributes: By name; text as str, tensors as tensors.
        given: Slots of the inputs that are not omitted.
        made: Slots of its outputs that are not omitted.
        training: Whether dropout drops and batch norms go by the batch.
    """

    operator: str
    name: str
    opset: int
    attributes: Mapping[str, Any]
    given: frozenset[int] = frozenset()
    made: frozenset[int] = frozenset({0})
    training: bool = False

    @property
    def outputs(self) -> int:
        """How many outputs are made, omitted ones before the last counted."""
        return max(self.made, default=-1) + 1

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        return int(self.attributes.get(name, default))

    def integers(self, name: str, default: list[int] | None = None) -> list[int] | None:
        """A list of integers."""
        found = self.attributes.get(name)
        return default if found is None else [int(value) for value in found]

    def real(self, name: str, default: float) -> float:
        """A float attribute."""
        return float(self.attributes.get(name, default))

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        return str(self.attributes.get(name, default))


def call_of(node: NodeProto, operator: str, opset: int) -> Call:
    """Reads a node's attributes."""
    attributes = {found.name: _plain(helper.get_attribute_value(found)) for found in node.attribute}
    given = frozenset(slot for slot, name in enumerate(node.input) if name)
    made = frozenset(slot for slot, name in enumerate(node.output) if name)
    return Call(operator, layer_name(node), opset, attributes, given, made)


def to_tensor(stored: TensorProto) -> Tensor:
    """A copy of a stored tensor.

    Raises:
        UnsupportedOperator: It holds text or numbers of fewer than eight bits.
    """
    dtype = DTYPES.get(stored.data_type)
    if dtype is None:
        kind = TensorProto.DataType.Name(stored.data_type).lower()
        raise UnsupportedOperator(f"The stored tensor {stored.name[:200]!r} holds {kind}, which training cannot use.")
    values = array(stored)
    if dtype == torch.float32:
        values = values.astype("float32")
    return torch.tensor(values, dtype=dtype)


def integers_of(tensor: Tensor) -> list[int]:
    """The elements of a tensor that describes a shape."""
    return [int(value) for value in tensor.flatten().tolist()]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list):
        return [_plain(element) for element in value]
    return to_tensor(value) if isinstance(value, TensorProto) else value


Limit = Callable[[Call], str | None]
"""Says which part of an operator is not served where a node uses it."""
Limits = Mapping[str, Limit]
