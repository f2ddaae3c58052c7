"""A graph as a module: its nodes one after the other, each by its operator's function."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from workers.compression.families.onnx.entrances import INPUT
from workers.compression.families.onnx.training.operators.call import Call, Function, Tensor
from workers.compression.families.onnx.training.operators.table import HOST_SLOTS, OPERATORS
from workers.compression.families.onnx.walking import Place

_RANDOM = frozenset({"Dropout"})
_HALVES = frozenset({torch.float16, torch.bfloat16})


@dataclass(frozen=True)
class Step:
    """One node: its function, what it is told in either mode, the names of what it reads and makes.

    ``done`` are the values that nobody reads afterwards; ``entrance`` is the number of the network's module that the
    first input passes.
    """

    function: Function
    evaluating: Call
    training: Call
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    host: tuple[int, ...]
    done: tuple[str, ...] = ()
    entrance: int | None = None

    def run(
        self, values: Mapping[str, Tensor], device: torch.device, entrances: torch.nn.ModuleList, *, training: bool
    ) -> dict[str, Tensor]:
        """The outputs by name."""
        given = [values[name] if name else None for name in self.inputs]
        if self.entrance is not None:
            given[INPUT] = entrances[self.entrance](given[INPUT])
        if device.type != "cpu":
            given = [self._moved(slot, tensor, given) for slot, tensor in enumerate(given)]
        made = self.function(self.training if training else self.evaluating, *given)
        results = made if isinstance(made, tuple | list) else (made,)
        return {name: result for name, result in zip(self.outputs, results, strict=False) if name}

    def _moved(self, slot: int, tensor: Tensor | None, given: Sequence[Tensor | None]) -> Tensor | None:
        """Brings what lies on the host to where the other inputs are, shapes excepted."""
        if tensor is None or slot in self.host or tensor.device.type != "cpu":
            return tensor
        elsewhere = (other.device for other in given if other is not None and other.device.type != "cpu")
        return tensor.to(next(elsewhere, tensor.device))


class GraphNetwork(torch.nn.Module):
    """Takes the graph's inputs in order, gives a tuple of its outputs in order.

    Half precision is computed in float32. Nodes that depend on constants alone are computed once.

    Args:
        inputs: Names of the graph's inputs.
        outputs: Names of its outputs.
        steps: In order of execution.
        constants: Stored tensors that do not learn.
        learned: For the name of each stored tensor that learns, the module's name for it.

    Attributes:
        entrances: What the inputs of layers pass; nothing changes them at first.
    """

    def __init__(
        self,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        steps: Sequence[Step],
        constants: dict[str, Tensor],
        learned: Mapping[str, str],
    ) -> None:
        super().__init__()
        self._inputs = inputs
        self.outputs = outputs
        self.entrances = torch.nn.ModuleList(torch.nn.Identity() for step in steps if step.entrance is not None)
        self._learned = dict(learned)
        self._constants, remaining = _folded(steps, constants, outputs)
        self._steps = _with_ends(remaining, {*outputs, *inputs, *self._constants, *learned})
        self._moved: dict[torch.device, dict[str, Tensor]] = {}

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One batch."""
        return self.values(inputs, self.outputs, self._parameters)

    def values(
        self, inputs: Sequence[Tensor], names: Sequence[str], parameters: Mapping[str, Tensor | None]
    ) -> tuple[Tensor, ...]:
        """The values ``names`` of the graph for one batch and ``parameters`` by their names in the module."""
        device = inputs[0].device if inputs else torch.device("cpu")
        values = dict(self._constants_on(device))
        for name, attribute in self._learned.items():
            learned = parameters.get(attribute)
            values[name] = self.get_buffer(attribute) if learned is None else learned
        for name, tensor in zip(self._inputs, inputs, strict=True):
            values[name] = tensor.float() if tensor.dtype in _HALVES else tensor
        kept = set(names)
        for step in self._steps:
            values.update(step.run(values, device, self.entrances, training=self.training))
            for name in step.done:
                if name not in kept:
                    del values[name]
        return tuple(values[name] for name in names)

    def _constants_on(self, device: torch.device) -> dict[str, Tensor]:
        """Constants where the inputs are; integers stay on the host, where shapes are computed."""
        if device.type == "cpu":
            return self._constants
        if device not in self._moved:
            self._moved[device] = {
                name: value.to(device) if value.is_floating_point() else value
                for name, value in self._constants.items()
            }
        return self._moved[device]


def step_of(place: Place, call: Call, entrance: int | None = None) -> Step:
    """The step of a node; its first input passes the network's module numbered ``entrance``."""
    inputs = list(place.node.input)
    while inputs and not inputs[-1]:
        inputs.pop()
    return Step(
        function=OPERATORS[call.operator],
        evaluating=call,
        training=replace(call, training=True),
        inputs=tuple(inputs),
        outputs=tuple(place.node.output),
        host=HOST_SLOTS.get(call.operator, ()),
        entrance=entrance,
    )


def _folded(
    steps: Sequence[Step], constants: dict[str, Tensor], outputs: tuple[str, ...]
) -> tuple[dict[str, Tensor], list[Step]]:
    known, remaining = dict(constants), []
    none = torch.nn.ModuleList()  # a layer has a weight that learns, so no step with an entrance is computed here
    with torch.no_grad():
        for step in steps:
            fixed = step.evaluating.operator not in _RANDOM and all(not name or name in known for name in step.inputs)
            if fixed:
                known.update(step.run(known, torch.device("cpu"), none, training=False))
            else:
                remaining.append(step)
    read = {name for step in remaining for name in step.inputs} | set(outputs)
    return {name: value for name, value in known.items() if name in read}, remaining


def _with_ends(steps: Sequence[Step], kept: set[str]) -> list[Step]:
    later, ended = set(kept), []
    for step in reversed(steps):
        names = {*step.inputs, *step.outputs} - {""}
        ended.append(replace(step, done=tuple(sorted(names - later))))
        later |= names
    return ended[::-1]
