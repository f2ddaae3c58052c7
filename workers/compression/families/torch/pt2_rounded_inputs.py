"""Rounds what enters layers of an exported program, by the operator of aten that torch itself trains with."""

from collections.abc import Collection, Mapping

import torch
from torch.export import ExportedProgram

from workers.compression.families.torch.pt2_entrances import input_position
from workers.compression.families.torch.pt2_layers import readers_of
from workers.compression.families.torch.pt2_program import placeholders
from workers.compression.quantization.activations import ActivationGrid


def round_inputs(program: ExportedProgram, weights: Collection[str], grids: Mapping[str, ActivationGrid]) -> None:
    """Rounds the inputs of all layers that compute with ``weights``, in place; a value once, however many read it.

    Args:
        weights: Names of stored tensors that are still floats.
        grids: By name of the value that enters.
    """
    order = {node: position for position, node in enumerate(program.graph.nodes)}
    nodes = placeholders(program)
    sites = [
        (reader, position)
        for name in weights
        for reader, via in readers_of(nodes[name])
        if (position := input_position(reader, via)) is not None
    ]
    rounded: dict[torch.fx.Node, torch.fx.Node] = {}
    for reader, position in sorted(sites, key=lambda site: order[site[0]]):
        entering = reader.args[position]
        if not isinstance(entering, torch.fx.Node) or entering.name not in grids:
            continue
        if entering not in rounded:
            rounded[entering] = _rounding(program.graph, entering, reader, grids[entering.name])
        reader.update_arg(position, rounded[entering])


def _rounding(
    graph: torch.fx.Graph, entering: torch.fx.Node, before: torch.fx.Node, grid: ActivationGrid
) -> torch.fx.Node:
    operator = torch.ops.aten.fake_quantize_per_tensor_affine.default
    with graph.inserting_before(before):
        node = graph.call_function(operator, (entering, grid.scale, grid.zero, 0, grid.top))
    node.meta["val"] = entering.meta["val"]
    return node
