"""What enters the layers of a torch network: seen by hooks on its modules, or by stepping through its graph."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

import torch

from workers.compression.families.model import Array, Feeds
from workers.compression.families.observed_inputs import Entries, Entry, Observe, Observed, Windows
from workers.compression.families.torch.pt2_entrances import input_position
from workers.compression.families.torch.pt2_layers import Use, turns, uses_of
from workers.compression.families.torch.pt2_program import operator_name
from workers.compression.families.weights import Weight

Run = Callable[[Feeds], object]


def module_entries(network: torch.nn.Module, weights: Iterable[Weight]) -> Entries:
    """What enters the linear layers and convolutions that hold the weights; the source is a module's name."""
    modules = dict(network.named_modules())
    found: dict[str, tuple[Entry, ...]] = {}
    for weight in weights:
        owner, _, leaf = weight.name.rpartition(".")
        module, columns = modules.get(owner), weight.matrix_shape[1]
        if leaf != "weight":
            continue
        if isinstance(module, torch.nn.Linear):
            found[weight.name] = (Entry(owner, columns),)
        elif isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d) and module.padding_mode == "zeros":
            windows = _windows(weight, module.stride, module.padding, module.dilation, module.groups)
            found[weight.name] = (Entry(owner, columns, windows),)
    return found


def watched_modules(network: torch.nn.Module, run: Run, batches: Callable[[], Iterator[Feeds]]) -> Observe:
    """Runs batches through ``run`` and gives what entered modules of ``network``."""

    def observe(sources: Sequence[Hashable]) -> Observed:
        modules = dict(network.named_modules())
        for feeds in batches():
            seen: dict[Hashable, list[Array]] = {source: [] for source in sources}
            handles = [modules[str(name)].register_forward_pre_hook(_noting(into)) for name, into in seen.items()]
            try:
                run(feeds)
            finally:
                for handle in handles:
                    handle.remove()
            yield feeds, seen

    return observe


def _noting(seen: list[Array]) -> Callable[[torch.nn.Module, tuple[Any, ...]], None]:
    def note(_module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        seen.append(arguments[0].detach().float().numpy())

    return note


def graph_entries(graph: torch.fx.Graph, weights: Iterable[Weight]) -> Entries:
    """What enters the products and convolutions that read the weights; the source is the entering node's name.

    Args:
        graph: Reads the weights as attributes.
    """
    by_name = {weight.name: weight for weight in weights}
    found: dict[str, list[Entry | None]] = {name: [] for name in by_name}
    for use in uses_of(graph, {name: name for name in by_name}):
        found[use.parameter].append(_entry(use, by_name[use.parameter]))
    known = {name: [entry for entry in entries if entry is not None] for name, entries in found.items()}
    whole = {name: entries for name, entries in known.items() if entries and len(entries) == len(found[name])}
    return {name: tuple(dict.fromkeys(entries)) for name, entries in whole.items()}


def watched_nodes(
    module: torch.fx.GraphModule,
    arguments: Callable[[Feeds], Sequence[Any]],
    batches: Callable[[], Iterator[Feeds]],
) -> Observe:
    """Runs batches through a module and gives the values of nodes of its graph.

    Args:
        arguments: One per placeholder, for a batch.
    """

    def observe(sources: Sequence[Hashable]) -> Observed:
        graph = torch.fx.Graph()
        copies: dict[torch.fx.Node, torch.fx.Node] = {}
        graph.graph_copy(module.graph, copies)
        by_name = {node.name: copied for node, copied in copies.items()}
        graph.output({str(source): by_name[str(source)] for source in sources})
        tapped = torch.fx.GraphModule(module, graph)
        for feeds in batches():
            with torch.inference_mode():
                values = tapped(*arguments(feeds))
            yield feeds, {source: [values[str(source)].float().numpy()] for source in sources}

    return observe


def _entry(use: Use, weight: Weight) -> Entry | None:
    position = input_position(use.reader, use.via)
    entering = None if position is None else use.reader.args[position]
    name = operator_name(use.reader)
    if not isinstance(entering, torch.fx.Node) or entering.op == "get_attr" or "transpose" in name:
        return None
    columns = weight.matrix_shape[1]
    if "conv" in name:
        windows = _convolution(use.reader, weight)
        return None if windows is None else Entry(entering.name, columns, windows)
    by_rows = (name == "linear") == (turns(use.via) % 2 == 0)
    return Entry(entering.name, columns) if weight.order == ((0, 1) if by_rows else (1, 0)) else None


def _convolution(reader: torch.fx.Node, weight: Weight) -> Windows | None:
    """The windows of a convolution; None for a transposed one."""
    defaults = (None, None, None, 1, 0, 1, False, 0, 1)
    given = (*reader.args, *defaults[len(reader.args) :])
    if operator_name(reader) != "convolution":
        given = (*reader.args, *(None, None, None, 1, 0, 1, 1)[len(reader.args) :])
        stride, padding, dilation, groups = given[3:7]
    else:
        stride, padding, dilation, transposed, _, groups = given[3:9]
        if transposed:
            return None
    return _windows(weight, stride, padding, dilation, groups)


def _windows(weight: Weight, stride: Any, padding: Any, dilation: Any, groups: Any) -> Windows:
    kernel = weight.shape[2:]
    stride, dilation = _each(stride, len(kernel)), _each(dilation, len(kernel))
    if padding == "same":
        return Windows(kernel, stride, dilation, "same_upper", int(groups))
    around = _each(0 if padding == "valid" else padding, len(kernel))
    return Windows(kernel, stride, dilation, tuple((pad, pad) for pad in around), int(groups))


def _each(value: Any, count: int) -> tuple[int, ...]:
    """One number per axis, however torch was given them."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return tuple(int(found) for found in (values * count if len(values) == 1 else values))
