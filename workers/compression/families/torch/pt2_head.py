"""A fresh last layer in an exported program."""

import copy
import math
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

from workers.compression.families.torch.pt2_editing import computed_value, put_values
from workers.compression.families.torch.pt2_layers import PASSING, PRODUCTS, turns
from workers.compression.families.torch.pt2_program import operator_name, placeholders
from workers.compression.specs.errors import UnsupportedTechnique

_FOLLOWING: Final = frozenset(
    {
        "softmax", "_softmax", "log_softmax", "_log_softmax", "sigmoid", "sigmoid_", "tanh", "relu", "relu_",
        "view", "reshape", "_unsafe_view", "flatten", "squeeze", "dropout", "clone", "alias", "contiguous",
        "_to_copy", "to",
    }
)  # fmt: skip
"""Operators that may stand between the last layer and the output: they take any number of classes."""
_SIZED: Final = frozenset({"view", "reshape", "_unsafe_view"})
_SHAPE_ERRORS: Final = (RuntimeError, ValueError, IndexError)


@dataclass(frozen=True)
class _Head:
    """The layer that makes the output.

    Args:
        product: Its matrix product.
        weight: Name of the weight.
        bias: Name of the bias, if it has one.
        inputs_first: Whether the weight is stored as (inputs, outputs).
        following: Operators from the product to the output, the product among them, in order.
    """

    product: torch.fx.Node
    weight: str
    bias: str | None
    inputs_first: bool
    following: tuple[torch.fx.Node, ...]


def with_fresh_head(program: ExportedProgram, classes: int, seed: int, shared: frozenset[str]) -> ExportedProgram:
    """A program that shares all values but those of its last layer, which are as a new linear layer's.

    Args:
        shared: Names of tensors of which another one shows the same memory.

    Raises:
        UnsupportedTechnique: No last layer with just this one output can be told, or what follows it counts on the
            number of its outputs.
    """
    made = copied_program(program)
    head = _find(made, shared)
    state, nodes = made.state_dict, placeholders(made)
    old = state[head.weight]
    before, inputs = (old.shape[1], old.shape[0]) if head.inputs_first else (old.shape[0], old.shape[1])
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {head.weight: (inputs, classes) if head.inputs_first else (classes, inputs)}
    if head.bias is not None:
        shapes[head.bias] = (classes,)
    bound = 1 / math.sqrt(max(inputs, 1))
    for name, shape in shapes.items():
        values = torch.empty(shape).uniform_(-bound, bound, generator=generator).to(state[name].dtype)
        put_values(made, name, values, nodes[name])
    _renew(made, head, shapes, before, classes)
    return made


def copied_program(program: ExportedProgram) -> ExportedProgram:
    """The program with a graph and lists of tensors of its own; the tensors themselves are shared."""
    module = copy.deepcopy(program.graph_module)
    for node, copied in zip(program.graph.nodes, module.graph.nodes, strict=True):
        # The copy's names differ where one is also a word of Python's, but the signature goes by name.
        copied.name = node.name
    return ExportedProgram(
        root=module,
        graph=module.graph,
        graph_signature=copy.deepcopy(program.graph_signature),
        state_dict=dict(program.state_dict),
        range_constraints=dict(program.range_constraints),
        module_call_graph=list(program.module_call_graph),
        example_inputs=None,
        constants=dict(program.constants),
        verifiers=program.verifiers,
    )


def _find(program: ExportedProgram, shared: frozenset[str]) -> _Head:
    specs = program.graph_signature.output_specs
    if len(specs) != 1 or specs[0].kind != OutputKind.USER_OUTPUT:
        raise _no_head(f"the program returns or changes {len(specs)} tensors, not one")
    names = {node: name for name, node in placeholders(program).items() if name in program.state_dict}
    node: Any = program.graph.output_node().args[0][0]
    following: list[torch.fx.Node] = []
    bias = None
    while isinstance(node, torch.fx.Node) and operator_name(node) not in PRODUCTS:
        if len(node.users) != 1:
            raise _no_head(f"{node.name} is used in several places")
        following.insert(0, node)
        if operator_name(node) == "add" and bias is None and _stored(node.args[1], names) is not None:
            bias = _stored(node.args[1], names)
        elif operator_name(node) not in _FOLLOWING:
            raise _no_head(f"the output comes from {operator_name(node) or node.name}, which is no linear layer")
        node = node.args[0]
    if not isinstance(node, torch.fx.Node) or len(node.users) != 1:
        raise _no_head("what makes the output is used in several places")
    return _checked(_head(node, bias, following, names), names, shared)


def _head(
    product: torch.fx.Node, bias: str | None, following: list[torch.fx.Node], names: dict[torch.fx.Node, str]
) -> _Head:
    kind = operator_name(product)
    via = product.args[PRODUCTS[kind]]
    weight = _stored(via, names)
    if weight is None or not isinstance(via, torch.fx.Node):
        raise _no_head(f"{product.name} multiplies by something that is computed")
    own = {"addmm": 0, "linear": 2}.get(kind)
    if own is not None and len(product.args) > own and product.args[own] is not None:
        found = _stored(product.args[own], names)
        if found is None or bias is not None:
            raise _no_head(f"the bias of {product.name} is computed")
        bias = found
    inputs_first = kind != "linear" and turns(via) % 2 == 0
    return _Head(product, weight, bias, inputs_first, (product, *following))


def _checked(head: _Head, names: dict[torch.fx.Node, str], shared: frozenset[str]) -> _Head:
    for node, name in names.items():
        if name in (head.weight, head.bias) and (name in shared or len(node.users) > 1):
            raise _no_head(f"{name} is tied to another layer")
        if name == head.weight and node.meta["val"].dim() != 2:
            raise _no_head(f"{name} is no matrix")
        if name == head.bias and node.meta["val"].dim() != 1:
            raise _no_head(f"{name} is no vector")
    return head


def _stored(node: Any, names: dict[torch.fx.Node, str]) -> str | None:
    """The stored tensor that ``node`` is, perhaps transposed or cast."""
    while isinstance(node, torch.fx.Node) and operator_name(node) in PASSING and len(node.users) == 1:
        node = node.args[0]
    return names.get(node) if isinstance(node, torch.fx.Node) else None


def _renew(
    program: ExportedProgram, head: _Head, shapes: dict[str, tuple[int, ...]], before: int, classes: int
) -> None:
    """Computes again what shapes the values have from the new weights on."""
    nodes = placeholders(program)
    touched = {nodes[name] for name in shapes}
    for node in program.graph.nodes:
        if node.op != "call_function" or touched.isdisjoint(node.all_input_nodes):
            continue
        touched.add(node)
        if operator_name(node) in _SIZED and node in head.following:
            sizes = node.args[1]
            if sizes and sizes[-1] == before:
                node.args = (node.args[0], [*sizes[:-1], classes])
        try:
            node.meta["val"] = computed_value(node, node.meta["val"].fake_mode)
        except _SHAPE_ERRORS as error:
            raise _no_head(f"{node.name} counts on {before} outputs") from error
    rank = head.product.meta["val"].dim()
    shape = head.following[-1].meta["val"].shape
    if shape[-1:] != (classes,) and not (classes == 1 and len(shape) == rank - 1):
        raise _no_head(f"{head.following[-1].name} counts on {before} outputs")


def _no_head(reason: str) -> UnsupportedTechnique:
    return UnsupportedTechnique(
        f"The last layer cannot be replaced: {reason}.",
        hint="Export the network with a linear layer of one output per class at its end.",
    )
