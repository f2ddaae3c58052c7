"""Writes the integer form of layers in ``QuantizeLinear``/``DequantizeLinear`` (QDQ) format."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, helper

from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.walking import Place, Scope, Value, array, layer_name
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.uniform import Grid, channel_axes, parameters_for, quantize
from workers.compression.techniques.quantize.integer_layers.errors import ACTIVATION_GRID
from workers.compression.techniques.quantize.integer_layers.plan import Candidate, Choice

Floats = npt.NDArray[np.float32]
_INT32 = np.iinfo(np.int32)


@dataclass
class QdqWriter:
    """Inserts the pairs; each activation is quantized once, however many layers read it."""

    editor: Editor
    grid: Grid
    granularity: str
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
        weights = array(candidate.weight.tensor).astype(np.float32)
        if choice.factors is not None:
            weights = weights * (choice.factors if candidate.input_axis == 1 else choice.factors[:, None])
        weight, weight_scale = self._weight(candidate, weights)
        inputs = [rounded, weight]
        if candidate.bias is not None:
            bias = array(index.stored[candidate.bias]).astype(np.float64)
            inputs.append(self._bias(candidate, bias, input_scale * weight_scale))
        body = helper.make_node(node.op_type, inputs, list(node.output), name=layer_name(node))
        body.attribute.extend(node.attribute)
        self._bodies[place] = body

    def _quantize_input(self, choice: Choice) -> None:
        value, place, scope = choice.candidate.entering, choice.candidate.place, choice.candidate.place.scope
        nodes = self._before.setdefault(place, [])
        name = value.name
        if choice.factors is not None:
            smooth = self.editor.fresh(f"{name}_smooth")
            factor = self.editor.store(scope, f"{name}_smoothing", (1.0 / choice.factors).astype(np.float32))
            nodes.append(helper.make_node("Mul", [name, factor], [smooth], name=self.editor.fresh(f"{name}_smoother")))
            name = smooth
        rounded = self.editor.fresh(f"{value.name}_rounded")
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
        integers = self.editor.fresh(f"{target}_integers")
        return [
            helper.make_node("QuantizeLinear", [source, *parameters], [integers], name=f"{integers}_quantize"),
            helper.make_node("DequantizeLinear", [integers, *parameters], [target], name=f"{integers}_dequantize"),
        ], found.scale

    def _weight(self, candidate: Candidate, weights: Floats) -> tuple[str, Floats]:
        value, axis = candidate.weight.value, candidate.channel_axis
        axes = channel_axes(weights.ndim, axis) if self.granularity == "channel" else None
        quantized = quantize(weights, self.grid, Blocks.spanning(weights.shape, axes))
        shape = () if axes is None else (-1,)
        scale: Floats = quantized.parameters.scale.reshape(shape)
        parts = (quantized.integers, scale, quantized.zeros.reshape(shape))
        return self._dequantized(candidate, value.name, parts, axis), scale

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
        target = self.editor.fresh(f"{name}_restored")
        node = helper.make_node("DequantizeLinear", stored, [target], name=f"{target}_dequantize", axis=axis)
        self._before.setdefault(candidate.place, []).append(node)
        return target
