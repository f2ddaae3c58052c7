"""Finds the float weights of a model that a technique may replace, by the operator that reads them."""

from collections.abc import Iterator
from dataclasses import dataclass

from onnx import TensorProto

from workers.compression.families.onnx.layers import computing_reader
from workers.compression.families.onnx.quantized import restorations
from workers.compression.families.onnx.walking import Index, Place, Reader, Value, layer_name, numel
from workers.compression.specs.step import selects

LAYER_OPERATORS = frozenset(
    {
        "MatMul",
        "Gemm",
        "FusedMatMul",
        "Conv",
        "ConvTranspose",
        "FusedConv",
        "LSTM",
        "GRU",
        "RNN",
        "Gather",
        "Attention",
        "EmbedLayerNormalization",
        "Einsum",
    }
)


@dataclass(frozen=True, eq=False)
class FloatWeight:
    """A stored float32 tensor that a layer computes with.

    ``layer`` is the name that reports use; ``readers`` are all direct readers, of which re-arranging nodes may be some.
    """

    value: Value
    tensor: TensorProto
    owner: Place
    layer: str
    readers: tuple[Reader, ...]

    @property
    def names(self) -> tuple[str, str]:
        """What include and exclude globs may match: the layer's or the stored tensor's name."""
        return self.layer, self.value.name


def float_weights(index: Index, smallest: int = 1, *, any_rank: bool = False) -> Iterator[FloatWeight]:
    """Weights in order of execution, each stored tensor once.

    Args:
        smallest: Tensors with fewer elements are left out.
        any_rank: Takes every float32 tensor that a node computes with: biases and norms too, by whatever operator.
    """
    found: dict[Place, list[FloatWeight]] = {}
    scales = {value for restoration in restorations(index).values() for value in restoration.overhead}
    for value, tensor in index.stored.items():
        if tensor.data_type != TensorProto.FLOAT or numel(tensor) < smallest or value in scales | index.outputs:
            continue
        owner = computing_reader(index, value)
        if owner is None or not (any_rank or _is_weight(owner, tensor)):
            continue
        readers = tuple(index.readers.get(value, ()))
        found.setdefault(owner, []).append(FloatWeight(value, tensor, owner, layer_name(owner.node), readers))
    for place in index.places:
        yield from found.get(place, ())


def _is_weight(owner: Place, tensor: TensorProto) -> bool:
    return owner.node.op_type in LAYER_OPERATORS and len(tensor.dims) >= 2


def is_selected(weight: FloatWeight, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    """Whether the globs of a step leave ``weight`` in, going by the layer's name or the tensor's."""
    included = any(selects(name, include, ()) for name in weight.names)
    return included and all(selects(name, (), exclude) for name in weight.names)
