"""Finds the layer that makes a model's output."""

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import NodeProto

from workers.compression.families.onnx.walking import (
    STANDARD,
    Index,
    Place,
    Value,
    integer_attribute,
    layer_name,
)
from workers.compression.families.trainable import OutputActivation
from workers.compression.specs.errors import UnsupportedTechnique

ACTIVATIONS: Mapping[str, OutputActivation] = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}

_PASSED = frozenset({"Identity", "Cast"})
_TURNED = [1, 0]


@dataclass(frozen=True)
class StoredInput:
    """A stored tensor as a node reads it.

    Args:
        place: The node.
        slot: Where it reads it.
        value: What is stored.
        turned: It is transposed on the way.
        owned: Nobody else reads it.
    """

    place: Place
    slot: int
    value: Value
    turned: bool
    owned: bool


@dataclass(frozen=True)
class Head:
    """The last layer: a ``Gemm``, or a ``MatMul`` with or without an ``Add`` behind it.

    Args:
        product: The ``Gemm`` or ``MatMul``.
        weight: Two axes; ``outputs_axis`` is the one of the outputs, as the product reads it.
        bias: None where it has none.
        chain: The nodes from the product to the output.
    """

    product: Place
    weight: StoredInput
    outputs_axis: int
    bias: StoredInput | None
    chain: tuple[Place, ...]

    @property
    def activation(self) -> Place | None:
        """The softmax or sigmoid behind the layer."""
        return next((place for place in self.chain if _operator(place.node) in ACTIVATIONS), None)


def output_activation(index: Index) -> OutputActivation:
    """What the only output went through last; of several outputs, none."""
    main = index.scopes[0]
    single = len(main.graph.output) == 1
    place = index.makers.get(Value(main, main.graph.output[0].name)) if single else None
    while place is not None and _operator(place.node) in _PASSED:
        place = _maker(index, place, 0)
    if place is None:
        return "none"
    return "softmax" if _is_written_out(index, place) else ACTIVATIONS.get(_operator(place.node), "none")


def _is_written_out(index: Index, place: Place) -> bool:
    """Whether ``place`` divides exponentials by their sum, which is a softmax."""
    if _operator(place.node) != "Div":
        return False
    above, below = _maker(index, place, 0), _maker(index, place, 1)
    if above is None or below is None or _operator(above.node) != "Exp" or _operator(below.node) != "ReduceSum":
        return False
    return index.read(below, 0) == index.made(above)


def find_head(index: Index) -> Head:
    """The last layer of a model with one output.

    Raises:
        UnsupportedTechnique: There is none, and why.
    """
    main = index.scopes[0]
    if len(main.graph.output) != 1:
        raise _refusal(f"it has {len(main.graph.output)} outputs")
    place = index.makers.get(Value(main, main.graph.output[0].name))
    behind: list[Place] = []
    activated = False
    while place is not None:
        name = _operator(place.node)
        if name not in _PASSED and (activated or name not in ACTIVATIONS):
            break
        activated |= name in ACTIVATIONS
        behind.insert(0, place)
        place = _maker(index, place, 0)
    if place is None:
        raise _refusal("its output is an input")
    product, bias = _product(index, place)
    chain = tuple(dict.fromkeys((product, place, *behind)))
    _check_chain(index, chain)
    weight = _stored_input(index, product, 1)
    if weight is None or len(index.stored[weight.value].dims) != 2:
        raise _refusal(f"the weight of its last layer {layer_name(product.node)!r} is not stored as a matrix")
    return Head(product, weight, 0 if integer_attribute(product.node, "transB", 0) else 1, bias, chain)


def _product(index: Index, place: Place) -> tuple[Place, StoredInput | None]:
    """The product that ``place`` is or adds a bias to, and the bias."""
    name = _operator(place.node)
    if name == "Gemm" and not integer_attribute(place.node, "transA", 0):
        bias = _stored_input(index, place, 2)
        if bias is None and len(place.node.input) > 2 and place.node.input[2]:
            raise _refusal("the bias of its last layer is computed")
        return place, bias
    if name == "MatMul":
        return place, None
    if name == "Add":
        for slot in (0, 1):
            maker, bias = _maker(index, place, 1 - slot), _stored_input(index, place, slot)
            if maker is not None and bias is not None and _operator(maker.node) == "MatMul":
                return maker, bias
    raise _refusal(f"its last layer {layer_name(place.node)[:200]!r} is a {name}, not a linear layer")


def _check_chain(index: Index, chain: tuple[Place, ...]) -> None:
    for position, place in enumerate(chain):
        made = index.made(place)
        last = position == len(chain) - 1
        if len(index.readers.get(made, ())) != (0 if last else 1) or (made in index.outputs) is not last:
            raise _refusal(f"what {layer_name(place.node)[:200]!r} makes is used elsewhere too")


def _stored_input(index: Index, place: Place, slot: int) -> StoredInput | None:
    value = index.read(place, slot)
    turned, owned = False, True
    while value is not None and value not in index.stored:
        owned &= len(index.readers[value]) == 1
        maker = index.makers.get(value)
        if maker is None or _operator(maker.node) not in _PASSED | {"Transpose"}:
            return None
        if maker.node.op_type == "Transpose":
            turned = not turned
        value = index.read(maker, 0)
    if value is None:
        return None
    return StoredInput(place, slot, value, turned, owned and len(index.readers[value]) == 1)


def _maker(index: Index, place: Place, slot: int) -> Place | None:
    value = index.read(place, slot)
    return index.makers.get(value) if value is not None and value not in index.stored else None


def _operator(node: NodeProto) -> str:
    return node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"


def _refusal(why: str) -> UnsupportedTechnique:
    return UnsupportedTechnique(
        f"The model cannot get a new last layer: {why}.",
        hint="Set head to keep, or export the model so that it ends in a linear layer, optionally with a softmax.",
    )
