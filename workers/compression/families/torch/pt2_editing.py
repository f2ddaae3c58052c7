"""Storing a weight of an exported program in fewer bits, with operators of aten that restore it.

Nothing but torch is needed to open the result. What is restored is as little as possible: rows of a table after they
were looked up, and scales of a linear layer on its output, so that the weight itself is only cast.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument

from workers.compression.families.torch.pt2_program import operator_name, placeholders, users_of
from workers.compression.families.torch.storage import Int8Weight

SCALE_SUFFIX = "_scale"
ZERO_POINT_SUFFIX = "_zero_point"
RESTORING = frozenset({"_to_copy", "sub", "mul"})
"""Operators that a restored weight passes on its way to the one that reads it."""

_ATEN = torch.ops.aten


def store_as_integers(program: ExportedProgram, name: str, weight: Int8Weight) -> None:
    """Replaces the float weight ``name`` by its integers, scales and zero points."""
    editor = _Editor(program, name)
    integers = editor.add_stored(name, weight.integers)
    scales = editor.add_stored(name + SCALE_SUFFIX, weight.scales)
    zeros = None
    if weight.zero_points is not None:
        zeros = editor.add_stored(name + ZERO_POINT_SUFFIX, weight.zero_points)
    by_row = weight.scales.numel() > 1 and weight.scales.shape[0] > 1

    def restored(user: torch.fx.Node, values: torch.fx.Node, indices: Any = None) -> torch.fx.Node:
        def part(node: torch.fx.Node) -> torch.fx.Node:
            return editor.call(user, _ATEN.embedding.default, node, indices) if indices is not None and by_row else node

        values = editor.cast(user, values, weight.scales.dtype)
        if zeros is not None:
            values = editor.call(user, _ATEN.sub.Tensor, values, editor.cast(user, part(zeros), weight.scales.dtype))
        return editor.call(user, _ATEN.mul.Tensor, values, part(scales))

    for user in editor.users():
        if operator_name(user) == "embedding" and user.args[0] is editor.weight:
            looked_up = editor.call(user, _ATEN.embedding.default, integers, user.args[1])
            editor.replace(user, restored(user, looked_up, user.args[1]))
        elif operator_name(user) == "linear" and user.args[1] is editor.weight and zeros is None:
            editor.replace(user, _scaled_linear(editor, user, integers, scales))
        else:
            user.replace_input_with(editor.weight, restored(user, integers))
    editor.finish()


def store_as_half(program: ExportedProgram, name: str) -> None:
    """Replaces the float weight ``name`` by its float16 rounding."""
    editor = _Editor(program, name)
    dtype = editor.values.dtype
    halves = editor.add_stored(name, editor.values.detach().to(torch.float16))
    for user in editor.users():
        if operator_name(user) == "embedding" and user.args[0] is editor.weight:
            looked_up = editor.call(user, _ATEN.embedding.default, halves, user.args[1])
            editor.replace(user, editor.cast(user, looked_up, dtype))
        else:
            user.replace_input_with(editor.weight, editor.cast(user, halves, dtype))
    editor.finish()


def settle(program: ExportedProgram) -> None:
    """Checks the edited graph and renews its code; once after all edits, since it takes time in the graph's size."""
    program.graph.lint()
    program.graph_module.recompile()


def _scaled_linear(
    editor: "_Editor", user: torch.fx.Node, integers: torch.fx.Node, scales: torch.fx.Node
) -> torch.fx.Node:
    """``linear`` on the bare integers, its outputs scaled: one pass over the weight instead of two."""
    dtype = scales.meta["val"].dtype
    product = editor.call(user, _ATEN.linear.default, user.args[0], editor.cast(user, integers, dtype))
    flat = editor.call(user, _ATEN.view.default, scales, [-1])
    scaled = editor.call(user, _ATEN.mul.Tensor, product, flat)
    bias = user.args[2] if len(user.args) > 2 else user.kwargs.get("bias")
    return scaled if bias is None else editor.call(user, _ATEN.add.Tensor, scaled, bias)


class _Editor:
    """Takes one weight out of a program and puts other stored tensors and operators in."""

    def __init__(self, program: ExportedProgram, name: str) -> None:
        self.program = program
        self.weight = placeholders(program)[name]
        self.values = program.state_dict.pop(name)
        self._fake_mode = self.weight.meta["val"].fake_mode

    def users(self) -> list[torch.fx.Node]:
        return users_of(self.weight)

    def add_stored(self, name: str, tensor: torch.Tensor) -> torch.fx.Node:
        """A new buffer that the graph reads."""
        with self.program.graph.inserting_before(self.weight):
            node: torch.fx.Node = self.program.graph.placeholder(f"b_{name.replace('.', '_').replace('-', '_')}")
        node.meta["val"] = self._fake_mode.from_tensor(tensor, static_shapes=True)
        spec = InputSpec(InputKind.BUFFER, TensorArgument(node.name), target=name, persistent=True)
        self.program.graph_signature.input_specs.insert(self._position(), spec)
        self.program.state_dict[name] = tensor
        return node

    def _position(self) -> int:
        specs = self.program.graph_signature.input_specs
        return next(index for index, spec in enumerate(specs) if spec.arg.name == self.weight.name)

    def call(
        self, before: torch.fx.Node, operator: Callable[..., Any], *arguments: Any, **options: Any
    ) -> torch.fx.Node:
        """A new operator in front of ``before``."""
        with self.program.graph.inserting_before(before):
            node: torch.fx.Node = self.program.graph.call_function(operator, arguments, options)
        values, named_values = torch.fx.node.map_arg((arguments, options), lambda argument: argument.meta["val"])
        with self._fake_mode:
            node.meta["val"] = operator(*values, **named_values)
        return node

    def cast(self, before: torch.fx.Node, node: torch.fx.Node, dtype: torch.dtype) -> torch.fx.Node:
        """``node`` in another type."""
        return self.call(before, _ATEN._to_copy.default, node, dtype=dtype)  # noqa: SLF001 - the name of an operator

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
        del self.program.graph_signature.input_specs[self._position()]
        self.program.graph.erase_node(self.weight)
