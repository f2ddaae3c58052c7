"""Writes the integer form of layers in ``QuantizeLinear``/``DequantizeLinear`` (QDQ) format."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, helper

from workers.compression.families.onnx.chains import Chain
from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.walking import Place, Scope, Value, array, layer_name
from workers.compression.quantization.uniform import parameters_for
from workers.compression.techniques.quantize.integer_layers.errors import ACTIVATION_GRID
from workers.compression.techniques.quantize.integer_layers.plan import Candidate, Choice
from workers.compression.techniques.quantize.integer_layers.shifting import shift_addition, smoothed

Floats = npt.NDArray[np.float32]
_INT32 = np.iinfo(np.int32)


@dataclass
class QdqWriter:
    """Inserts the pairs; each activation is quantized once, however many layers read it."""

    editor: Editor
    _entering: dict[Value, tuple[str, Floats]] = field(default_factory=dict)
    _before: dict[Place, list[NodeProto]] = field(default_factory=dict)
    _bodies: dict[Place, NodeProto] = field(default_factory=dict)
    _after: dict[Place, list[NodeProto]] = field(default_factory=dict)
    _renamed: dict[Place, str] = field(default_factory=dict)

    def write(self, choices: list[Choice]) -> None:
        """Replaces all chosen layers."""
        for choice in choices:
            if choice.leaving is not None and choice.candidate.leaving is not None:
                self._quantize_output(choice.candidate.leaving, choice.leaving)
        for choice in choices:
            self._quantize_layer(choice)
        for place in {**self._before, **self._bodies, **self._after}:
            body = NodeProto()
            body.CopyFrom(self._bodies.get(place, place.node))
            if place in self._renamed:
                body.output[0] = self._renamed[place]
            self.editor.replace(place, [*self._before.get(place, []), body, *self._after.get(place, [])])
        self.editor.drop_unread([choice.candidate.weight.value for choice in choices])
        self.editor.drop_unread([c.candidate.bias for c in choices if c.candidate.bias is not None])

    def _quantize_output(self, value: Value, limits: tuple[float, float]) -> None:
        if value in self._entering:
            return
        maker = self.editor.index.makers[value]
        self._renamed[maker] = self.editor.fresh(f"{value.name}_float")
        nodes, scale = self._pair(value.scope, self._renamed[maker], value.name, limits)
        self._after.setdefault(maker, []).extend(nodes)
        self._entering[value] = (value.name, scale)

    def _quantize_layer(self, choice: Choice) -> None:
        candidate, index = choice.candidate, self.editor.index
        place, node = candidate.place, candidate.place.node
        if candidate.entering not in self._entering:
            self._quantize_input(choice)
        rounded, input_scale = self._entering[candidate.entering]
        weight = choice.weight
        parts = (weight.integers, weight.scale, weight.zero)
        inputs = [rounded, self._dequantized(candidate, candidate.weight.value.name, parts, weight.axis)]
        if candidate.bias is not None:
            bias = array(index.stored[candidate.bias]).astype(np.float64)
            bias = bias if choice.shift is None else bias + choice.shift
            inputs.append(self._bias(candidate, bias, input_scale * weight.scale))
        shift_addition(self.editor, choice)
        body = helper.make_node(node.op_type, inputs, list(node.output), name=layer_name(node))
        body.attribute.extend(node.attribute)
        self._bodies[place] = body

    def _quantize_input(self, choice: Choice) -> None:
        value, place, scope = choice.candidate.entering, choice.candidate.place, choice.candidate.place.scope
        nodes = self._before.setdefault(place, [])
        name = value.name
        if choice.factors is not None:
            chain = Chain(self.editor, scope, name)
            name = smoothed(chain, name, choice.factors)
            nodes.extend(chain.nodes)
        rounded = self.editor.fresh("rounded")
        pair, scale = self._pair(scope, name, rounded, choice.entering)
        nodes.extend(pair)
        self._entering[value] = (rounded, scale)

    def _pair(
        self, scope: Scope, source: str, target: str, limits: tuple[float, float]
    ) -> tuple[list[NodeProto], Floats]:
        found = parameters_for(np.array(limits[0], np.float32), np.array(limits[1], np.float32), ACTIVATION_GRID)
        parameters = [
            self.editor.store(scope, f"{target}_scale", found.scale),
            self.editor.store(scope, f"{target}_zero_point", np.asarray(found.zero, np.uint8)),
        ]
        integers = self.editor.fresh("integers")
        return [
            helper.make_node("QuantizeLinear", [source, *parameters], [integers]),
            helper.make_node("DequantizeLinear", [integers, *parameters], [target]),
        ], found.scale

    def _bias(self, candidate: Candidate, bias: npt.NDArray[np.float64], scale: Floats) -> str:
        scale = np.broadcast_to(scale, bias.shape).astype(np.float32)
        integers = np.clip(np.rint(bias / scale), _INT32.min, _INT32.max).astype(np.int32)
        name = f"{layer_name(candidate.place.node)}_bias"
        return self._dequantized(candidate, name, (integers, scale, np.zeros(bias.shape, np.int32)), 0)

    def _dequantized(
        self, candidate: Candidate, name: str, parts: tuple[npt.NDArray[np.generic], ...], axis: int
    ) -> str:
        scope = candidate.place.scope
        stored = [
            self.editor.store(scope, f"{name}_{suffix}", part)
            for suffix, part in zip(("quantized", "scale", "zero_point"), parts, strict=True)
        ]
        target = self.editor.fresh("restored")
        node = helper.make_node("DequantizeLinear", stored, [target], axis=axis)
        self._before.setdefault(candidate.place, []).append(node)
        return target
