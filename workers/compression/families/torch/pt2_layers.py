"""The layers of an exported program, from its graph and from the names of its weights."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from workers.compression.families.torch.layers import layer_name
from workers.compression.families.torch.pt2_program import operator_name

TURNING = frozenset({"t", "transpose", "permute", "numpy_T"})
PASSING = TURNING | {"_to_copy", "to", "view", "reshape", "detach", "alias", "clone"}
"""Operators that a weight passes on its way to the one that reads it."""
_CONVOLUTIONS = frozenset({"convolution", "conv1d", "conv2d", "conv3d"})
PRODUCTS = {"linear": 1, "addmm": 2, "mm": 1, "matmul": 1}
"""Matrix products, and where they take the weight."""
_INDEX = re.compile(r"(?:^|(?<=\.))\d+(?=\.)")


@dataclass(frozen=True)
class Use:
    """An operator that reads a parameter.

    Args:
        via: The operator's argument: the parameter, or what it became on the way.
        name: The name under which this operator knows it.
        parameter: Its first name, if several are tied.
    """

    reader: torch.fx.Node
    via: torch.fx.Node
    name: str
    parameter: str


def uses_of(graph: torch.fx.Graph, parameters: Mapping[str, str]) -> list[Use]:
    """Where a network reads its parameters, in graph order.

    Args:
        parameters: First name of each parameter by each of its names.
    """
    order = {node: position for position, node in enumerate(graph.nodes)}
    found = [
        Use(reader, via, str(node.target), parameters[str(node.target)])
        for node in graph.nodes
        if node.op == "get_attr" and node.target in parameters
        for reader, via in readers_of(node)
    ]
    return sorted(found, key=lambda use: order[use.reader])


def readers_of(node: torch.fx.Node) -> Iterator[tuple[torch.fx.Node, torch.fx.Node]]:
    """Operators that compute with a stored tensor, each with the argument by which it knows it."""
    for user in node.users:
        if operator_name(user) in PASSING:
            yield from readers_of(user)
        elif user.op != "output":
            yield user, node


def linear_weights(uses: Iterable[Use]) -> tuple[str, ...]:
    """Parameters that only linear layers and convolutions read, as weights with their outputs on axis 0."""
    fits: dict[str, bool] = {}
    for use in uses:
        fits[use.parameter] = fits.get(use.parameter, True) and _is_weight(use)
    return tuple(name for name, fit in fits.items() if fit)


def _is_weight(use: Use) -> bool:
    name, arguments = operator_name(use.reader), use.reader.args
    if name in _CONVOLUTIONS:
        is_transposed = name == "convolution" and bool(arguments[6])
        return arguments[1] is use.via and not is_transposed
    position = PRODUCTS.get(name)
    if position is None or len(arguments) <= position or arguments[position] is not use.via:
        return False
    return turns(use.via) == (0 if name == "linear" else 1)


def turns(node: torch.fx.Node) -> int:
    """How often a matrix was transposed on the way to ``node``."""
    found = 0
    while node.op == "call_function":
        found += operator_name(node) in TURNING
        node = node.args[0]  # type: ignore[assignment]  # operators that are passed take a tensor first
    return found


def layers_of(uses: Sequence[Use]) -> dict[str, tuple[str, ...]]:
    """Parameters by layer or repeated block, in the order of first use; the layer that makes the output comes last.

    A tied parameter belongs to the layer that makes the output if that reads it, else to the first that does.
    """
    if not uses:
        return {}
    blocks = _blocks_of_uses(uses)
    last = blocks[-1]
    chosen = {use.parameter: last for use, block in zip(uses, blocks, strict=True) if block == last}
    for use, block in zip(uses, blocks, strict=True):
        chosen.setdefault(use.parameter, block)
    members: dict[str, list[str]] = defaultdict(list)
    for parameter in dict.fromkeys(use.parameter for use in uses):
        members[chosen[parameter]].append(parameter)
    members[last] = members.pop(last)
    return {layer: tuple(names) for layer, names in members.items()}


def _blocks_of_uses(uses: Sequence[Use]) -> list[str]:
    """The block of each use; what is added right after a layer is that layer's bias."""
    block_of = _blocks({use.name for use in uses})
    by_reader: dict[object, str] = {}
    found = []
    for use in uses:
        before = use.reader.args[0] if operator_name(use.reader) == "add" else None
        block = by_reader.get(before, block_of[use.name])
        by_reader.setdefault(use.reader, block)
        found.append(block)
    return found


def _blocks(names: set[str]) -> dict[str, str]:
    """The repeated block that each parameter belongs to, such as ``encoder.layer.0``; else the layer that owns it.

    Blocks are numbered members of one container that hold layers of the same name.
    """
    holders: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name in names:
        for match in _INDEX.finditer(name):
            rest = name[match.end() + 1 :]
            if "." in rest:
                holders[name[: match.start()], rest].add(match.group())
    repeated = {container for (container, _), indices in holders.items() if len(indices) > 1}
    return {name: _block(name, repeated) for name in names}


def _block(name: str, repeated: set[str]) -> str:
    for match in _INDEX.finditer(name):
        if name[: match.start()] in repeated and "." in name[match.end() + 1 :]:
            return name[: match.end()]
    return layer_name(name)


def last_nodes(uses: Sequence[Use], layers: Mapping[str, tuple[str, ...]]) -> dict[str, torch.fx.Node]:
    """The last value of each layer but the one that makes the output: past activations, up to where paths part."""
    layer_of = {name: layer for layer, names in layers.items() for name in names}
    last = {layer_of[use.parameter]: use.reader for use in uses}
    reading = {use.reader for use in uses}
    found = {}
    for layer in list(layers)[:-1]:
        node = _first_result(last[layer])
        while len(node.users) == 1:
            follower = next(iter(node.users))
            if follower in reading or not _keeps_shape(node, follower):
                break
            node = follower
        found[layer] = node
    return found


def _first_result(node: torch.fx.Node) -> torch.fx.Node:
    """The tensor that an operator gives; of several the first."""
    if isinstance(node.meta.get("val"), torch.Tensor):
        return node
    return next((user for user in node.users if user.args[1:] == (0,)), node)


def _keeps_shape(node: torch.fx.Node, follower: torch.fx.Node) -> bool:
    before, after = node.meta.get("val"), follower.meta.get("val")
    if follower.op == "output" or not isinstance(before, torch.Tensor) or not isinstance(after, torch.Tensor):
        return False
    return list(map(str, before.shape)) == list(map(str, after.shape))
