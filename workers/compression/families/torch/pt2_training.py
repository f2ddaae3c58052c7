"""What training needs of an exported program."""

from collections.abc import Mapping, Sequence

import torch
from torch.export import ExportedProgram

from workers.compression.families.torch.pt2_entrances import input_position
from workers.compression.families.torch.pt2_layers import Use, last_nodes, layers_of, linear_weights, uses_of
from workers.compression.families.torch.pt2_network import Network, network_of
from workers.compression.families.torch.pt2_program import operator_name
from workers.compression.families.trainable import Entrance, OutputActivation, Trainable
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.messages import Port

_ACTIVATIONS: dict[str, OutputActivation] = {
    "softmax": "softmax",
    "_softmax": "softmax",
    "log_softmax": "log_softmax",
    "_log_softmax": "log_softmax",
    "sigmoid": "sigmoid",
}
ENTRANCE = "_entrance_"
_PASSING = frozenset({"view", "reshape", "flatten", "squeeze", "unsqueeze", "_to_copy", "to", "clone", "alias"})


def trainable_program(program: ExportedProgram, tied: Mapping[str, str], inputs: Sequence[Port]) -> Trainable:
    """A trainable copy of a program.

    Args:
        tied: First name of each stored tensor that shows the same memory, by name.

    Raises:
        UnsupportedTechnique: It was exported for training, or holds no weight that could learn.
    """
    network = network_of(program, tied)
    parameters = _first_names(network.root)
    uses = uses_of(network.graph, parameters)
    layers = layers_of(uses)
    if not layers:
        raise UnsupportedTechnique("The program reads no weight stored as floats, so that nothing in it can learn.")
    taps = last_nodes(uses, layers)
    output_activation = _output_activation(network.graph, uses)
    entrances = _with_entrances(network, uses)
    return Trainable(
        module=network.module(),
        names=network.names,
        layers=tuple(layers.values()),
        linear=linear_weights(uses),
        taps=tuple(taps),
        tapped=network.module(taps),
        output_activation=output_activation,
        compute_batch=fixed_batch(inputs),
        entrances=entrances,
    )


def _with_entrances(network: Network, uses: Sequence[Use]) -> tuple[Entrance, ...]:
    """Puts modules that change nothing where activations enter layers; says where."""
    found: list[Entrance] = []
    for use in uses:
        position = input_position(use.reader, use.via)
        entering = None if position is None else use.reader.args[position]
        if position is None or not isinstance(entering, torch.fx.Node) or entering.op == "get_attr":
            continue
        name = f"{ENTRANCE}{len(found)}"
        network.root.add_module(name, torch.nn.Identity())
        with network.graph.inserting_before(use.reader):
            passed = network.graph.call_module(name, (entering,))
        passed.meta = dict(entering.meta)
        use.reader.update_arg(position, passed)
        found.append(Entrance(name, use.parameter, network.sources[entering]))
    return tuple(found)


def _first_names(root: torch.nn.Module) -> dict[str, str]:
    first: dict[int, str] = {}
    for name, parameter in root.named_parameters():
        first[id(parameter)] = name
    return {name: first[id(parameter)] for name, parameter in root.named_parameters(remove_duplicate=False)}


def fixed_batch(inputs: Sequence[Port]) -> int | None:
    """The number of rows that a network was exported for, where it is a number."""
    sizes = [port.shape[0] for port in inputs if port.shape]
    return next((size for size in sizes if isinstance(size, int)), None)


def _output_activation(graph: torch.fx.Graph, uses: Sequence[Use]) -> OutputActivation:
    """What the only output went through after the last layer."""
    values = graph.output_node().args[0]
    reading = {use.reader for use in uses}
    node = values[0] if isinstance(values, tuple) and len(values) == 1 else None
    while isinstance(node, torch.fx.Node) and node not in reading:
        name = operator_name(node)
        if name in _ACTIVATIONS:
            return _ACTIVATIONS[name]
        node = node.args[0] if name in _PASSING else None
    return "none"
