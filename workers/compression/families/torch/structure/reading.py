"""The units of an exported program, and the program without some of them."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.export import ExportedProgram
from torch.fx import Node

from workers.compression.families.torch import running
from workers.compression.families.torch.pt2_editing import computed_value, put_values
from workers.compression.families.torch.pt2_program import first_names, operator_name, placeholders
from workers.compression.families.torch.structure.call import Call, Reading, Rule, Shape, has_tag, outputs_read
from workers.compression.families.torch.structure.edits import Edit
from workers.compression.families.torch.structure.operators.elementwise import ELEMENTWISE, together
from workers.compression.families.torch.structure.operators.products import PRODUCTS
from workers.compression.families.torch.structure.operators.shapes import SHAPES
from workers.compression.structure.network import Unrelated
from workers.compression.structure.relations import Axes, fixed, sizes
from workers.compression.structure.units import Removed, Structure

_RULES: dict[str, Rule] = PRODUCTS | ELEMENTWISE | SHAPES


@dataclass(frozen=True)
class ProgramStructure:
    """A program's units and the numbers in it that depend on them; for as long as only stored values change."""

    structure: Structure
    program: ExportedProgram
    edits: tuple[Edit, ...]

    def shrink(self, removed: Removed) -> None:
        """Takes units out of the program, in place."""
        structure, nodes = self.structure, placeholders(self.program)
        changed = {edit.node for edit in self.edits if edit.apply(lambda axis: structure.length(axis, removed))}
        smaller: dict[str, torch.Tensor] = {}
        for name, first in ((name, first) for name, first in first_names(self.program).items() if name in nodes):
            kept = [structure.kept(axis, removed) for axis in structure.stored.get(first, ())]
            if all(mask.all() for mask in kept):
                continue
            if first not in smaller:
                smaller[first] = cut_values(self.program.state_dict[name].detach(), kept)
            put_values(self.program, name, smaller[first], nodes[name])
            changed.add(nodes[name])
        _renew(self.program, changed)


def cut_values(values: torch.Tensor, kept: Sequence[npt.NDArray[np.bool_]]) -> torch.Tensor:
    """The values without some elements of each axis."""
    for place, mask in enumerate(kept):
        values = values.index_select(place, torch.from_numpy(np.flatnonzero(mask)))
    return values.contiguous()


def _renew(program: ExportedProgram, changed: set[Node]) -> None:
    """Computes again what shapes values have, from those in ``changed`` on."""
    mode = next(iter(placeholders(program).values())).meta["val"].fake_mode
    for node in program.graph.nodes:
        known = "val" in node.meta
        if node.op == "call_function" and (
            not known or node in changed or not changed.isdisjoint(node.all_input_nodes)
        ):
            before = _written(node.meta.get("val"))
            node.meta["val"] = computed_value(node, mode)
            if _written(node.meta["val"]) == before and known:
                changed.discard(node)
            else:
                changed.add(node)


def _written(value: Any) -> str:
    """The shapes of a value's tensors; comparing them themselves would bind lengths that vary."""
    values = value if isinstance(value, list | tuple) else (value,)
    return str([getattr(found, "shape", found) for found in values])


def read_structure(program: ExportedProgram, inputs: Sequence[Any]) -> ProgramStructure:
    """Follows every axis of every value through the graph.

    What an operator without a rule touches stays, as do the program's outputs and buffers that it changes.

    Args:
        inputs: One row, for the graph's inputs in order; lengths that may vary should be ones that no other axis has.
    """
    first, nodes = first_names(program), placeholders(program)
    names = {node: first[name] for name, node in nodes.items() if _is_float(program.state_dict.get(name))}
    weights = frozenset(node for node in names if node.meta["val"].dim() > 1)
    reading = Reading(_shapes(program, inputs), weights)
    stored: dict[str, Axes] = {}
    for node in program.graph.nodes:
        if node in names:
            shape = tuple(node.meta["val"].shape)
            own = stored.setdefault(names[node], tuple(reading.network.fresh(size) for size in shape))
            reading.axes[node] = [own]
        else:
            reading.axes[node] = _follow(reading, node)
    changed = program.graph_signature.buffers_to_mutate.values()
    for axes in (stored.get(first[name], ()) for name in changed):
        reading.network.lock(*axes)
    return ProgramStructure(reading.network.structure(stored), program, tuple(reading.edits))


def _is_float(tensor: torch.Tensor | None) -> bool:
    return tensor is not None and tensor.is_floating_point()


def _follow(reading: Reading, node: Node) -> list[Axes]:
    if node.target is operator.getitem:
        holder, place = node.args
        return reading.axes[holder][place:][:1]  # type: ignore[index]  # a node and a number by its schema
    rule = together if has_tag(node, torch.Tag.pointwise) else _rule(operator_name(node))
    kept = len(reading.edits), len(reading.network.products)
    if rule is not None:
        try:
            return _checked(reading, node, rule(Call(reading, node)))
        except (Unrelated, IndexError, ValueError):  # numbers of axes that no rule expects
            del reading.edits[kept[0] :], reading.network.products[kept[1] :]
    for operand in node.all_input_nodes:
        reading.network.lock(*(axis for axes in reading.axes[operand] for axis in axes))
    return [fixed(shape) for shape in reading.shapes.get(node, ())]


def _rule(name: str) -> Rule | None:
    """An operator that writes in place relates what the one that does not relates."""
    return _RULES.get(name) or _RULES.get(name.removesuffix("_"))


def _checked(reading: Reading, node: Node, made: list[Axes]) -> list[Axes]:
    """Rules that were mistaken about a shape relate nothing."""
    shapes = reading.shapes.get(node, [])
    if [sizes(axes) for axes in made] != shapes[: len(made)] or outputs_read(node) > max(len(made), 1):
        raise Unrelated
    reading.network.lock(*(axis for axes in made for axis in axes if len(axis) == 1))  # nothing would be left of it
    return made + [fixed(shape) for shape in shapes[len(made) :]]


class _Recorder(torch.fx.Interpreter):
    """Runs a graph and notes the shapes of all values."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__(program.graph_module)
        self.shapes: dict[Node, list[Shape]] = {}

    def run_node(self, n: Node) -> Any:
        """As the interpreter; the parameter's name is that of its base."""
        result = super().run_node(n)
        values = result if isinstance(result, list | tuple) else (result,)
        self.shapes[n] = [tuple(getattr(value, "shape", ())) for value in values if not isinstance(value, _NUMBERS)]
        return result


_NUMBERS = (int, float, bool, str)


def _shapes(program: ExportedProgram, inputs: Sequence[Any]) -> Mapping[Node, list[Shape]]:
    recorder, given = _Recorder(program), iter(inputs)
    tensors = {**program.constants, **program.state_dict}
    arguments = [
        next(given) if spec.target is None else tensors[spec.target] for spec in program.graph_signature.input_specs
    ]

    def record() -> list[torch.Tensor]:
        recorder.run(*arguments)
        return []

    running.outputs_of(record)
    return recorder.shapes
