"""Putting other stored tensors and operators in the place of a weight of an exported program."""

from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument

from workers.compression.families.torch.pt2_program import operator_name, placeholders, users_of

_ATEN = torch.ops.aten


def store_as_float(program: ExportedProgram, name: str, dtype: torch.dtype) -> None:
    """Replaces the float weight ``name`` by its rounding to a narrower type."""
    editor = Editor(program, name)
    computed = editor.values.dtype
    narrow = editor.add_stored(name, editor.values.detach().to(dtype))
    for user in editor.users():
        if editor.looks_up(user):
            looked_up = insert_call(user, _ATEN.embedding.default, narrow, user.args[1])
            editor.replace(user, editor.cast(user, looked_up, computed))
        else:
            user.replace_input_with(editor.weight, editor.cast(user, narrow, computed))
    editor.finish()


def settle(program: ExportedProgram) -> None:
    """Checks the edited graph and renews its code; once after all edits, since it takes time in the graph's size."""
    program.graph.lint()
    program.graph_module.recompile()


def add_buffer(program: ExportedProgram, name: str, tensor: torch.Tensor) -> torch.fx.Node:
    """A new buffer in front of all other stored tensors, or the one that bears the name already."""
    known = placeholders(program)
    if name in known:
        return known[name]
    first = next(iter(known.values()))
    return _add_buffer(program, name, tensor, first)


def put_values(program: ExportedProgram, name: str, values: torch.Tensor, node: torch.fx.Node | None) -> None:
    """Gives a stored tensor values of another shape.

    Args:
        node: The graph's input for it, if it has one; what reads it has to be computed again.
    """
    is_parameter = isinstance(program.state_dict[name], torch.nn.Parameter)
    program.state_dict[name] = torch.nn.Parameter(values, requires_grad=False) if is_parameter else values
    if node is not None:
        node.meta["val"] = node.meta["val"].fake_mode.from_tensor(values, static_shapes=True)


def computed_value(node: torch.fx.Node, mode: FakeTensorMode) -> Any:
    """What an operator gives for what its arguments stand for: tensors without values, and lengths."""
    values, options = torch.fx.node.map_arg((node.args, node.kwargs), lambda argument: argument.meta["val"])
    with mode:
        return node.target(*values, **options)  # type: ignore[operator]  # nodes of other kinds have no arguments


def _add_buffer(program: ExportedProgram, name: str, tensor: torch.Tensor, before: torch.fx.Node) -> torch.fx.Node:
    node = _add_input(program, f"b_{name}", tensor, before)
    spec = InputSpec(InputKind.BUFFER, TensorArgument(node.name), target=name, persistent=True)
    program.graph_signature.input_specs.insert(_position(program, before), spec)
    program.state_dict[name] = tensor
    return node


def add_parameter(program: ExportedProgram, name: str, tensor: torch.Tensor, before: torch.fx.Node) -> torch.fx.Node:
    """A new weight in front of another one."""
    node = _add_input(program, f"p_{name}", tensor, before)
    spec = InputSpec(InputKind.PARAMETER, TensorArgument(node.name), target=name)
    program.graph_signature.input_specs.insert(_position(program, before), spec)
    program.state_dict[name] = torch.nn.Parameter(tensor, requires_grad=False)
    return node


def _add_input(program: ExportedProgram, name: str, tensor: torch.Tensor, before: torch.fx.Node) -> torch.fx.Node:
    with program.graph.inserting_before(before):
        node: torch.fx.Node = program.graph.placeholder(name.replace(".", "_").replace("-", "_"))
    node.meta["val"] = before.meta["val"].fake_mode.from_tensor(tensor, static_shapes=True)
    return node


def insert_call(before: torch.fx.Node, operator: Callable[..., Any], *arguments: Any, **options: Any) -> torch.fx.Node:
    """A new operator in front of ``before``."""
    with before.graph.inserting_before(before):
        node: torch.fx.Node = before.graph.call_function(operator, arguments, options)
    renew_value(node)
    return node


def renew_value(node: torch.fx.Node) -> None:
    """Computes anew what is known of an operator's result, after its arguments have changed."""
    known = (found.meta["val"] for found in node.graph.nodes if found.op == "placeholder")
    mode = next(value.fake_mode for value in known if isinstance(value, FakeTensor))
    node.meta["val"] = computed_value(node, mode)


def _position(program: ExportedProgram, node: torch.fx.Node) -> int:
    specs = program.graph_signature.input_specs
    return next(index for index, spec in enumerate(specs) if spec.arg.name == node.name)


class Editor:
    """Takes one weight out of a program and puts other stored tensors and operators in."""

    def __init__(self, program: ExportedProgram, name: str) -> None:
        self.program = program
        self.weight = placeholders(program)[name]
        self.values = program.state_dict.pop(name)

    def users(self) -> list[torch.fx.Node]:
        """Operators that read the weight, in graph order."""
        return users_of(self.weight)

    def looks_up(self, user: torch.fx.Node) -> bool:
        """Whether an operator reads rows of the weight."""
        return operator_name(user) == "embedding" and user.args[0] is self.weight

    def add_stored(self, name: str, tensor: torch.Tensor) -> torch.fx.Node:
        """A new buffer that the graph reads."""
        return _add_buffer(self.program, name, tensor, self.weight)

    def cast(self, before: torch.fx.Node, node: torch.fx.Node, dtype: torch.dtype) -> torch.fx.Node:
        """``node`` in another type, itself where it has that."""
        if node.meta["val"].dtype == dtype:
            return node
        return insert_call(before, _ATEN._to_copy.default, node, dtype=dtype)  # noqa: SLF001 - the name of an operator

    def replace(self, user: torch.fx.Node, replacement: torch.fx.Node) -> None:
        """Puts ``replacement`` in the place of an operator, under its name where the program returns it."""
        name = user.name
        user.replace_all_uses_with(replacement)
        self.program.graph.erase_node(user)
        self._rename_output(name, replacement.name)

    def _rename_output(self, old: str, new: str) -> None:
        for spec in self.program.graph_signature.output_specs:
            if spec.arg.name == old:
                spec.arg.name = new

    def finish(self) -> None:
        """Removes the weight, which nothing reads any more."""
        del self.program.graph_signature.input_specs[_position(self.program, self.weight)]
        self.program.graph.erase_node(self.weight)
