"""Folds batch norms of an exported program into the layer before them."""

from dataclasses import dataclass

import torch
from torch.export import ExportedProgram

from workers.compression.families.torch.pt2_modes import epsilon_in_evaluation
from workers.compression.families.torch.pt2_program import operator_name, placeholders
from workers.compression.families.torch.pt2_readers import is_transposed

_LAYERS = frozenset({"convolution", "conv1d", "conv2d", "conv3d", "linear"})
_BIAS = 2
"""Which argument of these operators is the bias."""


@dataclass(frozen=True)
class _Pair:
    """A layer and the batch norm that alone reads it, with the names of their stored tensors."""

    layer: torch.fx.Node
    norm: torch.fx.Node
    result: torch.fx.Node
    weight: str
    bias: str | None
    scale: str | None
    shift: str | None
    mean: str
    variance: str
    epsilon: float


def fold_batch_norms(program: ExportedProgram) -> int:
    """Folds every batch norm behind a convolution or linear layer, in place; returns how many there were.

    Both have to read stored tensors that nothing else reads; a layer without a bias gets the norm's shift for one.
    """
    names = {node: name for name, node in placeholders(program).items() if name in program.state_dict}
    pairs = [pair for node in program.graph.nodes if (pair := _pair(node, names, program)) is not None]
    nodes = placeholders(program)
    for pair in pairs:
        _fold(program, pair, nodes)
    return len(pairs)


def _pair(norm: torch.fx.Node, names: dict[torch.fx.Node, str], program: ExportedProgram) -> _Pair | None:
    epsilon = epsilon_in_evaluation(norm)
    layer = norm.args[0] if epsilon is not None else None
    result = _result(norm)
    if epsilon is None or not isinstance(layer, torch.fx.Node) or not _can_take_a_norm(layer) or result is None:
        return None
    bias = layer.args[_BIAS] if len(layer.args) > _BIAS else layer.kwargs.get("bias")
    parts = (layer.args[1], bias, *norm.args[1:5])
    given = [part for part in parts if isinstance(part, torch.fx.Node)]
    owned = all(node in names and len(node.users) == 1 for node in given)
    weight, *others, mean, variance = (names.get(part) if isinstance(part, torch.fx.Node) else None for part in parts)
    if not owned or weight is None or mean is None or variance is None or _is_shared(program, given, names):
        return None
    own_bias, scale, shift = others
    if own_bias is None and shift is None:
        return None
    return _Pair(layer, norm, result, weight, own_bias, scale, shift, mean, variance, epsilon)


def _can_take_a_norm(layer: torch.fx.Node) -> bool:
    """Whether its outputs are the weight's first axis and only the norm reads them."""
    name = operator_name(layer)
    channels_second = name != "linear" or layer.meta["val"].dim() == 2
    return name in _LAYERS and not is_transposed(layer) and channels_second and len(layer.users) == 1


def _result(norm: torch.fx.Node) -> torch.fx.Node | None:
    """The normalized values: the operator's, or the first of its several results where nothing reads the others."""
    if isinstance(norm.meta["val"], torch.Tensor):
        return norm
    read = [user for user in norm.users if user.users]
    return read[0] if len(read) == 1 and read[0].args[1:] == (0,) else None


def _is_shared(program: ExportedProgram, nodes: list[torch.fx.Node], names: dict[torch.fx.Node, str]) -> bool:
    """Whether a stored tensor has another name besides."""
    places = [tensor.data_ptr() for tensor in program.state_dict.values() if tensor.numel()]
    return any(places.count(program.state_dict[names[node]].data_ptr()) > 1 for node in nodes)


def _fold(program: ExportedProgram, pair: _Pair, nodes: dict[str, torch.fx.Node]) -> None:
    def stored(name: str | None, default: float) -> torch.Tensor:
        values = torch.full((), default) if name is None else program.state_dict[name]
        return values.detach().double()

    factor = stored(pair.scale, 1.0) / (stored(pair.variance, 1.0) + pair.epsilon).sqrt()
    weight = stored(pair.weight, 0.0)
    bias = (stored(pair.bias, 0.0) - stored(pair.mean, 0.0)) * factor + stored(pair.shift, 0.0)
    _replace(program, pair.weight, weight * factor.reshape(-1, *[1] * (weight.dim() - 1)))
    kept = pair.bias or pair.shift
    if kept is not None:
        _replace(program, kept, bias)
        if pair.bias is None:
            _set_bias(pair.layer, nodes[kept])
    pair.result.replace_all_uses_with(pair.layer)
    _rename_output(program, pair.result.name, pair.layer.name)
    for node in dict.fromkeys((*pair.norm.users, pair.result, pair.norm)):
        program.graph.erase_node(node)
    gone = [name for name in (pair.scale, pair.shift, pair.mean, pair.variance) if name not in (None, kept)]
    counter = f"{pair.mean.rpartition('.')[0]}.num_batches_tracked".removeprefix(".")
    for name in (*gone, counter):
        _drop(program, str(name), nodes)


def _set_bias(layer: torch.fx.Node, node: torch.fx.Node) -> None:
    layer.kwargs = {name: value for name, value in layer.kwargs.items() if name != "bias"}
    layer.args = (*layer.args[:_BIAS], node, *layer.args[_BIAS + 1 :])


def _replace(program: ExportedProgram, name: str, values: torch.Tensor) -> None:
    before = program.state_dict[name]
    program.state_dict[name] = torch.nn.Parameter(values.to(before.dtype).contiguous(), requires_grad=False)


def _rename_output(program: ExportedProgram, old: str, new: str) -> None:
    for spec in program.graph_signature.output_specs:
        if spec.arg.name == old:
            spec.arg.name = new


def _drop(program: ExportedProgram, name: str, nodes: dict[str, torch.fx.Node]) -> None:
    """Removes a stored tensor that nothing reads any more."""
    node = nodes.get(name)
    if node is None or node.users:
        return
    specs = program.graph_signature.input_specs
    specs.remove(next(spec for spec in specs if spec.arg.name == node.name))
    program.graph.erase_node(node)
    program.state_dict.pop(name, None)
    program.constants.pop(name, None)
