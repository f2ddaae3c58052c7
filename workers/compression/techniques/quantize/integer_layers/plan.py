"""Which layers of an ONNX model can compute on integers, and which of their values must be known for it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from workers.compression.families.onnx.float_weights import FloatWeight
from workers.compression.families.onnx.walking import (
    Index,
    Place,
    Reader,
    Value,
    float_attribute,
    integer_attribute,
)
from workers.compression.techniques.quantize.integer_layers.rounding import RoundedWeight

Floats = npt.NDArray[np.float32]

_CLAMPS = frozenset({"Relu", "Clip"})


@dataclass(frozen=True, eq=False)
class Candidate:
    """A layer with integer kernels.

    Args:
        place: The layer's node.
        weight: Its stored weight, which no other node reads.
        entering: The activation it reads.
        leaving: The value whose range its integer output needs; None where the kernel puts out floats.
        bias: Its stored bias.
        addition: The node right behind it that adds a stored vector of its own, where the layer has no bias itself.
    """

    place: Place
    weight: FloatWeight
    entering: Value
    leaving: Value | None
    bias: Value | None
    addition: Reader | None = None

    @property
    def convolution(self) -> bool:
        """Whether it is a convolution, whose integer kernel has integer output."""
        return self.place.node.op_type == "Conv"

    @property
    def can_shift(self) -> bool:
        """Whether there is a bias that a constant can be added to."""
        return self.bias is not None or self.addition is not None

    @property
    def channel_axis(self) -> int:
        """Axis of the weight that runs along output channels."""
        if self.convolution or integer_attribute(self.place.node, "transB", 0):
            return 0
        return len(self.weight.tensor.dims) - 1

    @property
    def input_axis(self) -> int:
        """Axis of a matrix weight that runs along input channels."""
        return 1 - self.channel_axis


@dataclass(frozen=True, eq=False)
class Choice:
    """How to quantize a layer.

    Args:
        candidate: The layer.
        entering: Range of its input, once that is smoothed.
        leaving: Range of its integer output.
        weight: Its weight, with the factors in it.
        factors: What the input's channels are divided by, where that pays.
        shift: What to add to the bias, where that pays.
    """

    candidate: Candidate
    entering: tuple[float, float]
    leaving: tuple[float, float] | None
    weight: RoundedWeight
    factors: Floats | None = None
    shift: Floats | None = None


def candidates(index: Index, weights: list[FloatWeight]) -> Iterator[Candidate]:
    """The layers among ``weights`` that onnxruntime has integer kernels for; main graph only."""
    for weight in weights:
        if len(weight.readers) != 1:
            continue
        place = weight.readers[0].place
        entering = index.read(place, 0)
        if place.scope.parent is not None or weight.readers[0].slot != 1 or not _has_kernel(place, weight):
            continue
        if entering is None or entering in index.stored or entering.scope is not place.scope:
            continue
        bias = index.read(place, 2)
        if bias is not None and not _is_stored_vector(index, bias):
            continue
        leaving = _leaving(index, place) if place.node.op_type == "Conv" else None
        if place.node.op_type != "Conv" or leaving is not None:
            addition = _addition(index, place) if bias is None else None
            yield Candidate(place, weight, entering, leaving, bias, addition)


def observed(found: list[Candidate]) -> dict[str, int | None]:
    """Names of the values that must be known, with their width where matrix products read them."""
    widths: dict[str, int | None] = {}
    for candidate in found:
        if candidate.leaving is not None:
            widths.setdefault(candidate.leaving.name, None)
        width = None if candidate.convolution else int(candidate.weight.tensor.dims[candidate.input_axis])
        known = widths.setdefault(candidate.entering.name, width)
        widths[candidate.entering.name] = width if known == width else None
    return widths


def _has_kernel(place: Place, weight: FloatWeight) -> bool:
    node, rank = place.node, len(weight.tensor.dims)
    if node.op_type == "MatMul":
        return rank == 2
    if node.op_type == "Gemm":
        plain = float_attribute(node, "alpha", 1.0) == 1.0 and float_attribute(node, "beta", 1.0) == 1.0
        return plain and not integer_attribute(node, "transA", 0)
    return node.op_type == "Conv"


def _is_stored_vector(index: Index, bias: Value) -> bool:
    tensor = index.stored.get(bias)
    return tensor is not None and tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 1


def _leaving(index: Index, place: Place) -> Value | None:
    """The convolution's output, or that of a clamp right behind it, which the integer output range replaces."""
    made = index.made(place)
    readers = index.readers.get(made, [])
    if made in index.outputs:
        return None
    if len(readers) == 1 and readers[0].place.node.op_type in _CLAMPS and readers[0].place.scope is place.scope:
        clamped = index.made(readers[0].place)
        return None if clamped in index.outputs else clamped
    return made


def _addition(index: Index, place: Place) -> Reader | None:
    """The slot at which a node right behind ``place`` reads a stored vector that nothing else reads."""
    made = index.made(place)
    readers = index.readers.get(made, [])
    if len(readers) != 1 or made in index.outputs or place.node.op_type == "Conv":
        return None
    following = readers[0]
    if following.place.node.op_type != "Add" or following.place.scope is not place.scope:
        return None
    other = index.read(following.place, 1 - following.slot)
    if other is None or not _is_stored_vector(index, other) or len(index.readers[other]) != 1:
        return None
    return Reader(following.place, 1 - following.slot)
