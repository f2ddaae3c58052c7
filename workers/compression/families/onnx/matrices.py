"""An ONNX model's float weights as matrices (outputs, inputs), whatever operator reads them."""

from collections.abc import Iterator

from onnx import ModelProto

from workers.compression.families.onnx.float_weights import FloatWeight, float_weights
from workers.compression.families.onnx.walking import Index, Reader, integer_attribute
from workers.compression.families.weights import Role, Weight

_ROLES: dict[str, Role] = {
    "MatMul": "linear",
    "FusedMatMul": "linear",
    "Gemm": "linear",
    "Attention": "linear",
    "Einsum": "linear",
    "Conv": "convolution",
    "ConvTranspose": "convolution",
    "FusedConv": "convolution",
    "LSTM": "recurrent",
    "GRU": "recurrent",
    "RNN": "recurrent",
    "EmbedLayerNormalization": "embedding",
}


def weights_of(proto: ModelProto, smallest: int = 1) -> Iterator[tuple[Weight, FloatWeight]]:
    """The weights in order of execution, each with where it stands; names are made unique by a number.

    Args:
        smallest: Tensors with fewer elements are left out.
    """
    yield from weights_in(Index.of(proto), smallest)


def weights_in(index: Index, smallest: int = 1) -> Iterator[tuple[Weight, FloatWeight]]:
    """``weights_of`` an indexed model: the values found are those of this index."""
    seen: dict[str, int] = {}
    for found in float_weights(index, smallest):
        count = seen[found.value.name] = seen.get(found.value.name, 0) + 1
        name = found.value.name if count == 1 else f"{found.value.name}#{count}"
        order, leading = _orientation(found)
        yield Weight(name, found.layer, tuple(found.tensor.dims), "float32", _role(found), order, leading), found


def is_lookup(reader: Reader) -> bool:
    """Whether a node looks up rows of the table it reads at this slot."""
    node = reader.place.node
    return node.op_type == "Gather" and reader.slot == 0 and integer_attribute(node, "axis", 0) == 0


def _role(found: FloatWeight) -> Role:
    if len(found.tensor.dims) == 2 and any(is_lookup(reader) for reader in found.readers):
        return "embedding"
    role = _ROLES.get(found.owner.node.op_type, "other")
    # What a recurrent operator takes with two axes are its biases, a row per direction.
    return "other" if role == "recurrent" and len(found.tensor.dims) == 2 else role


def _orientation(found: FloatWeight) -> tuple[tuple[int, ...], int]:
    """The axes with outputs first, and how many of them make up the rows."""
    rank = len(found.tensor.dims)
    identity = tuple(range(rank))
    reader = found.readers[0]
    node = reader.place.node
    if reader.place is not found.owner or rank < 2:
        return identity, 1
    operator = node.op_type
    if operator == "ConvTranspose":
        return (1, 0, *identity[2:]), 1
    if operator in {"LSTM", "GRU", "RNN"}:
        return identity, rank - 1
    if operator in {"MatMul", "FusedMatMul", "Gemm", "Attention"} and reader.slot == 1:
        by_rows = integer_attribute(node, "transB", 0) and operator != "MatMul"
        swapped = identity if by_rows else (*identity[:-2], rank - 1, rank - 2)
        return swapped, rank - 1
    return identity, 1
