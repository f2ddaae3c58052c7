"""Tells before anything is computed whether training can pass through a graph."""

from collections.abc import Sequence

from onnx import ModelProto, NodeProto

from workers.compression.families.onnx.folding import FOLDABLE
from workers.compression.families.onnx.quantized import restorations
from workers.compression.families.onnx.training.operators.call import Call, call_of
from workers.compression.families.onnx.training.operators.table import LIMITS, OPERATORS
from workers.compression.families.onnx.walking import STANDARD, Index, Place, Value, layer_name
from workers.compression.specs.errors import UnsupportedOperator

FIRST_OPSET = 7
"""Before it, broadcasting followed other rules."""
MAX_LISTED = 20

_QUANTIZED = ("Quantize", "Dequantize", "QLinear", "Integer", "NBits", "Bnb4", "QGemm", "QAttention", "QEmbed", "QMoE")
_BEFORE_QUANTIZING = "Train the model before quantizing it."


def operator_of(node: NodeProto) -> str:
    """An operator's name as in the table: with its domain, unless that is the standard one."""
    return node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"


def live_places(index: Index) -> list[Place]:
    """The computing nodes of the main graph that its outputs depend on, in order of execution.

    A node with branches depends on what they read as well as on its inputs.
    """
    main = index.scopes[0]
    wanted = {value for value in index.outputs if value.scope is main}
    found: list[Place] = []
    for place in reversed([place for place in index.places if place.scope is main]):
        made = {Value(main, name) for name in place.node.output if name}
        if made & wanted and not made & index.stored.keys():
            found.append(place)
            slots = (index.read(place, slot) for slot in range(len(place.node.input)))
            wanted.update(value for value in slots if value is not None)
    return found[::-1]


def calls_of(proto: ModelProto, index: Index, places: Sequence[Place]) -> list[Call]:
    """What each node's function is told.

    Raises:
        UnsupportedOperator: For all operators at once that have no function or are used in a way that has none; for
            quantized weights.
    """
    opsets = {"" if opset.domain in STANDARD else opset.domain: opset.version for opset in proto.opset_import}
    if opsets.get("", FIRST_OPSET) < FIRST_OPSET:
        raise UnsupportedOperator(
            f"The model is written in opset {opsets['']}; training reads opset {FIRST_OPSET} and newer.",
            hint="Export the model again with a newer opset.",
        )
    found = [(place, problem) for place in places if (problem := _problem(place.node)) is not None]
    if all(place.node.op_type in FOLDABLE for place, _ in found):
        _check_stored(proto, index)
    if found:
        problems = {problem: layer_name(place.node)[:100] for place, problem in reversed(found)}
        raise _refusal(problems)
    _check_stored(proto, index)
    return [_call(place.node, opsets) for place in places]


def _call(node: NodeProto, opsets: dict[str, int]) -> Call:
    domain = "" if node.domain in STANDARD else node.domain
    return call_of(node, operator_of(node), opsets.get(domain, 1))


def _problem(node: NodeProto) -> str | None:
    name = operator_of(node)
    if name not in OPERATORS:
        return name
    limit = LIMITS.get(name)
    why = limit(_call(node, {})) if limit is not None else None
    return None if why is None else f"{name} where {why}"


def _refusal(problems: dict[str, str]) -> UnsupportedOperator:
    listed = [f"{problem} (node {node!r})" for problem, node in sorted(problems.items())]
    more = f" and {len(listed) - MAX_LISTED} more" if len(listed) > MAX_LISTED else ""
    quantized = any(part in problem for problem in problems for part in _QUANTIZED)
    return UnsupportedOperator(
        f"Training does not pass through {', '.join(listed[:MAX_LISTED])}{more}.",
        hint=_BEFORE_QUANTIZING if quantized else "Export the model without them, or train it as a pt2 file.",
    )


def _check_stored(proto: ModelProto, index: Index) -> None:
    quantized = next(iter(restorations(index)), None)
    if quantized is not None:
        raise UnsupportedOperator(
            f"The weight {quantized.name[:200]!r} is quantized, and its codes cannot learn.", hint=_BEFORE_QUANTIZING
        )
    if proto.graph.sparse_initializer:
        name = proto.graph.sparse_initializer[0].values.name
        raise UnsupportedOperator(f"The weight {name[:200]!r} is stored as a sparse tensor, which training cannot use.")
