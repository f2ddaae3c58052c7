"""Layers of an exported program as two in a row: a narrow one, and one that widens what it makes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from workers.compression.factorization.truncation import Factors
from workers.compression.families.torch.layers import layer_name
from workers.compression.families.torch.pt2_editing import add_parameter, insert_call, put_values, renew_value
from workers.compression.families.torch.pt2_layers import PRODUCTS, TURNING, turns
from workers.compression.families.torch.pt2_program import memory_of, operator_name, placeholders, users_of

_ATEN = torch.ops.aten
_GROUPS = {"conv1d": 6, "conv2d": 6, "conv3d": 6, "convolution": 8}
"""Convolutions, and where they take the number of groups."""
_TRANSPOSED = 6
"""Where ``convolution``, the only one of them that can be, says that it is."""


def factorable(program: ExportedProgram) -> frozenset[str]:
    """Names of weights that nothing but matrix products and undivided convolutions read, and none is tied to."""
    parameters = {
        spec.target for spec in program.graph_signature.input_specs if spec.kind is InputKind.PARAMETER
    } & program.state_dict.keys()
    places = [memory_of(tensor) for tensor in program.state_dict.values()]
    found = set()
    for name, node in placeholders(program).items():
        if name not in parameters or places.count(memory_of(program.state_dict[name])) > 1:
            continue
        readers = _readers(node)
        if readers and all(_is_factorable(reader, via) for reader, via in readers):
            found.add(name)
    return frozenset(found)


def factor(program: ExportedProgram, factors: Mapping[str, Factors]) -> None:
    """Puts two layers in the place of each that reads one of the weights, in place.

    The second one keeps the layer's name, bias and output.

    Args:
        factors: By name of the weight.
    """
    for name, found in factors.items():
        _factor(program, name, found)


def _readers(node: torch.fx.Node) -> list[tuple[torch.fx.Node, torch.fx.Node]]:
    """Operators that read a weight, each with the argument by which it knows it."""
    found = []
    for user in users_of(node):
        found += _readers(user) if operator_name(user) in TURNING else [(user, node)]
    return found


def _is_factorable(reader: torch.fx.Node, via: torch.fx.Node) -> bool:
    kind, arguments = operator_name(reader), reader.args
    if kind in _GROUPS:
        divided = len(arguments) > _GROUPS[kind] and arguments[_GROUPS[kind]] != 1
        transposed = kind == "convolution" and arguments[_TRANSPOSED]
        return arguments[1] is via and via.op == "placeholder" and not (divided or transposed or reader.kwargs)
    place = PRODUCTS.get(kind)
    if place is None or len(arguments) <= place or arguments[place] is not via or via.meta["val"].dim() != 2:
        return False
    # Weights are seen as (outputs, inputs) unless a bare product reads them as they are.
    return via.op == "placeholder" if kind == "linear" else turns(via) <= 1


def _factor(program: ExportedProgram, name: str, factors: Factors) -> None:
    weight = placeholders(program)[name]
    stored = program.state_dict[name]
    readers = _readers(weight)
    narrow, wide = _laid_out(stored, factors, inputs_first=_is_inputs_first(*readers[0]))
    thinner = add_parameter(program, _fresh(program, name), narrow, weight)
    put_values(program, name, wide, weight)
    for reader, via in readers:
        _renew_turns(via)
        if operator_name(reader) in _GROUPS:
            _two_convolutions(reader, thinner)
        else:
            place = PRODUCTS[operator_name(reader)] - 1
            reader.update_arg(place, insert_call(reader, _ATEN.linear.default, reader.args[place], thinner))


def _is_inputs_first(reader: torch.fx.Node, via: torch.fx.Node) -> bool:
    return operator_name(reader) in PRODUCTS and operator_name(reader) != "linear" and turns(via) == 0


def _laid_out(stored: torch.Tensor, factors: Factors, *, inputs_first: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The narrow layer's weight, outputs first, and the wide one's, laid out as the weight that it replaces."""
    narrow, wide = factors.right, factors.left
    if stored.dim() > 2:
        narrow, wide = narrow.reshape(-1, *stored.shape[1:]), wide.reshape(*wide.shape, *(1,) * (stored.dim() - 2))
    elif inputs_first:
        wide = wide.T
    first, second = (torch.from_numpy(np.array(found, order="C")).to(stored.dtype) for found in (narrow, wide))
    return first, second


def _fresh(program: ExportedProgram, name: str) -> str:
    layer = layer_name(name)
    rest = name[len(layer) :]
    while (found := f"{layer}_narrow{rest}") in program.state_dict:
        layer += "_narrow"
    return found


def _renew_turns(node: torch.fx.Node) -> None:
    if node.op == "call_function":
        _renew_turns(node.all_input_nodes[0])
        renew_value(node)


def _two_convolutions(reader: torch.fx.Node, narrow: torch.fx.Node) -> None:
    """The first one has the window's size, strides, padding and dilation, the second one looks at single places."""
    entering, weight, *rest = reader.args
    bias, settings = (rest or [None])[0], tuple(rest[1:])
    target: Any = reader.target
    between = insert_call(reader, target, entering, narrow, None, *settings)
    if operator_name(reader) != "convolution":
        reader.args = (between, weight, bias)
        return
    once, nowhere = [1] * (len(narrow.meta["val"].shape) - 2), [0] * (len(narrow.meta["val"].shape) - 2)
    reader.args = (between, weight, bias, once, nowhere, once, False, nowhere, 1)
