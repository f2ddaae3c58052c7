"""An exported program as a module that learns: values of its own, in float32, with operators that know two modes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, InputSpec, OutputKind
from torch.export.graph_signature import TensorArgument as TensorName

from workers.compression.families.torch.pt2_modes import running_figures, switched
from workers.compression.families.torch.pt2_program import operator_name, users_of
from workers.compression.specs.errors import UnsupportedTechnique

_HALVES = (torch.float16, torch.bfloat16)
_SWITCH = "_switched_"


@dataclass(frozen=True)
class Network:
    """A program as a module.

    Args:
        root: Holds the tensors under the names they have in the program, and the operators that know two modes.
        graph: Over ``root``; takes the program's tensors in order and returns a tuple of its outputs in order.
        names: Stored name of each parameter and each stored float buffer, by its name in ``root``.
        sources: Name in the program of what each of the graph's nodes was copied from.
    """

    root: torch.nn.Module
    graph: torch.fx.Graph
    names: dict[str, str]
    sources: dict[torch.fx.Node, str]

    def module(self, taps: Mapping[str, torch.fx.Node] | None = None) -> torch.fx.GraphModule:
        """The network, evaluating; with ``taps`` it returns the outputs and the values of these nodes by name."""
        if taps is None:
            return torch.fx.GraphModule(self.root, self.graph).eval()
        graph = torch.fx.Graph()
        copies: dict[torch.fx.Node, torch.fx.Node] = {}
        outputs = graph.graph_copy(self.graph, copies)
        graph.output((outputs, {name: copies[node] for name, node in taps.items()}))
        return torch.fx.GraphModule(self.root, graph).eval()


def network_of(program: ExportedProgram, tied: Mapping[str, str]) -> Network:
    """The program as a network with values of its own.

    Args:
        tied: First name of each stored tensor that shows the same memory, by name.

    Raises:
        UnsupportedTechnique: The program was exported for training, or a name in it is one that torch uses itself.
    """
    builder = _Builder(program, tied)
    builder.copy_nodes()
    return Network(builder.root, builder.graph, builder.names, builder.sources())


class _Builder:
    def __init__(self, program: ExportedProgram, tied: Mapping[str, str]) -> None:
        self.program = program
        self.tied = tied
        self.root = torch.nn.Module()
        self.graph = torch.fx.Graph()
        self.names: dict[str, str] = {}
        self._copies: dict[torch.fx.Node, Any] = {}
        self._own: dict[str, torch.Tensor] = {}
        self._narrow: set[torch.fx.Node] = set()

    def copy_nodes(self) -> None:
        """Carries the graph over, with stored tensors as attributes instead of inputs."""
        specs = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        figures = set(_running_figures(self.program.graph))
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self._copies[node] = self._input(node, specs[node.name], is_figure=node in figures)
            elif node.op == "output":
                self.graph.output(self._outputs(node))
            else:
                self._copies[node] = self._operator(node)

    def sources(self) -> dict[torch.fx.Node, str]:
        """The program's name of each copied node; of several that became one, the first."""
        found: dict[torch.fx.Node, str] = {}
        for node, copied in self._copies.items():
            if isinstance(copied, torch.fx.Node):
                found.setdefault(copied, node.name)
        return found

    def _input(self, node: torch.fx.Node, spec: InputSpec, *, is_figure: bool) -> Any:
        if isinstance(spec.arg, ConstantArgument):
            return spec.arg.value
        if spec.kind == InputKind.USER_INPUT:
            copied = self.graph.node_copy(node)
            if node.meta["val"].dtype in _HALVES:
                return self.graph.call_function(torch.ops.aten.to.dtype, (copied, torch.float32))
            return copied
        name = str(spec.target)
        state = self.program.state_dict
        values = state[name] if name in state else self.program.constants[name]
        learns = name in state and not is_figure and _learns(node, spec.kind, values)
        self._hold(name, values, learns=learns)
        copied = self.graph.create_node("get_attr", name)
        copied.meta = {**node.meta, "val": node.meta["val"]}
        if values.dtype in _HALVES:
            self._narrow.add(node)
        return copied

    def _hold(self, name: str, values: torch.Tensor, *, learns: bool) -> None:
        """Registers a copy of a stored tensor below the root, one that tied names share."""
        first = self.tied.get(name, name)
        if first not in self._own:
            own = values.detach().clone()
            own = own.float() if own.dtype in _HALVES else own
            self._own[first] = torch.nn.Parameter(own) if learns else own
            if name in self.program.state_dict and own.is_floating_point():
                self.names[name] = name
        path, _, leaf = name.rpartition(".")
        owner = self.root
        try:
            for part in path.split(".") if path else ():
                if not hasattr(owner, part):
                    owner.add_module(part, torch.nn.Module())
                owner = owner.get_submodule(part)
            own = self._own[first]
            if isinstance(own, torch.nn.Parameter):
                owner.register_parameter(leaf, own)
            else:
                owner.register_buffer(leaf, own)
        except (KeyError, AttributeError) as error:
            raise UnsupportedTechnique(f"No module of torch can hold a tensor called {name[:100]!r}.") from error

    def _operator(self, node: torch.fx.Node) -> Any:
        if node.args and node.args[0] in self._narrow and _is_cast(node):
            return self._copies[node.args[0]]  # type: ignore[index]  # a node, since it is in the set
        known = switched(node)
        if known is None:
            copied = self.graph.node_copy(node, self._copied)
            copied.args, copied.kwargs = self._arguments((node.args, node.kwargs))
            return copied
        module, arguments = known
        name = f"{_SWITCH}{node.name}"
        self.root.add_module(name, module)
        copied = self.graph.create_node("call_module", name, self._arguments(arguments), name=node.name)
        copied.meta = dict(node.meta)
        return copied

    def _copied(self, node: torch.fx.Node) -> Any:
        return self._copies[node]

    def _arguments(self, arguments: Any) -> Any:
        """Arguments over the copied nodes, with half precision widened."""
        return torch.fx.node.map_aggregate(arguments, self._argument)

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, torch.fx.Node):
            return self._copies[argument]
        return torch.float32 if argument in _HALVES else argument

    def _outputs(self, node: torch.fx.Node) -> tuple[Any, ...]:
        specs = self.program.graph_signature.output_specs
        values = node.args[0]
        return tuple(
            self._argument(value)
            for spec, value in zip(specs, values, strict=True)  # type: ignore[arg-type]  # a tuple by torch's schema
            if spec.kind == OutputKind.USER_OUTPUT and isinstance(spec.arg, TensorName)
        )


def _is_cast(node: torch.fx.Node) -> bool:
    return operator_name(node) == "_to_copy" and node.kwargs.keys() <= {"dtype"}


def _learns(node: torch.fx.Node, kind: InputKind, values: torch.Tensor) -> bool:
    """Whether a stored tensor is a weight: a parameter, or one that was put into fewer bits and is restored."""
    if kind == InputKind.PARAMETER:
        return values.is_floating_point()
    restored = all(operator_name(user) in ("_to_copy", "embedding") for user in users_of(node))
    return values.dtype in _HALVES and restored


def _running_figures(graph: torch.fx.Graph) -> Iterator[torch.fx.Node]:
    """Stored means and variances of batch norms, past casts."""
    for node in graph.nodes:
        yield from (_before_casts(figure) for figure in running_figures(node) if isinstance(figure, torch.fx.Node))


def _before_casts(node: torch.fx.Node) -> torch.fx.Node:
    while _is_cast(node):
        node = node.args[0]  # type: ignore[assignment]  # a cast takes a tensor first
    return node
