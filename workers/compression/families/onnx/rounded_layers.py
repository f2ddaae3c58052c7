"""Layers on integers with known ranges, in ``QuantizeLinear``/``DequantizeLinear`` form, which runtimes fuse."""

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto, helper

from workers.compression.families.model import Array
from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.entrances import INPUT, layers_reading
from workers.compression.families.onnx.walking import Index, Place, Value, array, float_attribute
from workers.compression.families.weights import Weight
from workers.compression.quantization.activations import ActivationGrid
from workers.compression.quantization.uniform import UniformWeight

_BIAS = 2
_INT32 = np.iinfo(np.int32)
_WHOLE_BITS = 8


def round_inputs(
    proto: ModelProto, weights: Mapping[str, tuple[Weight, UniformWeight]], grids: Mapping[str, ActivationGrid]
) -> set[str]:
    """Rounds the inputs of all layers that compute with ``weights``, in place; a value once, however many read it.

    Where input and weight have 8 bits, integer kernels multiply them: there the weight is stored as int8, and the bias
    as int32 on the grid of the products.

    Args:
        weights: By name of a tensor that is still stored as floats.
        grids: By name of the value that enters.

    Returns:
        The weights that were stored as integers.
    """
    writer = _Writer(Editor(proto), grids)
    return writer.write(weights)


class _Writer:
    def __init__(self, editor: Editor, grids: Mapping[str, ActivationGrid]) -> None:
        self.editor, self.grids = editor, grids
        self.main = editor.index.scopes[0]
        self._rounded: dict[str, str] = {}
        self._biases: list[Value] = []

    def write(self, weights: Mapping[str, tuple[Weight, UniformWeight]]) -> set[str]:
        index = self.editor.index
        layers = {name: list(layers_reading(index, Value(self.main, name))) for name in weights}
        reading = {place: name for name, places in layers.items() for place in places if place.scope is self.main}
        stored = {name for name in weights if self._is_multiplied_as_integers(name, layers[name], weights[name][1])}
        for place in index.places:
            if place in reading and place.node.input[INPUT] in self.grids:
                form = weights[reading[place]][1] if reading[place] in stored else None
                self.editor.replace(place, self._layer(place, form))
        self.editor.drop_unread(self._biases)
        for name in stored:
            self._store_weight(name, *weights[name])
        self.editor.apply()
        return stored

    def _is_multiplied_as_integers(self, name: str, layers: list[Place], form: UniformWeight) -> bool:
        readers = {reader.place for reader in self.editor.index.readers[Value(self.main, name)]}
        return (
            readers == set(layers)
            and form.grid.narrow
            and all(
                form.blocks.counts[1] == 1
                and place.scope is self.main
                and place.node.input[INPUT] in self.grids
                and self.grids[place.node.input[INPUT]].bits == _WHOLE_BITS
                and form.grid.signed
                for place in layers
            )
        )

    def _layer(self, place: Place, form: UniformWeight | None) -> list[NodeProto]:
        """The layer on a rounded input, after what makes this where no layer before it does."""
        node = NodeProto()
        node.CopyFrom(place.node)
        name = node.input[INPUT]
        nodes: list[NodeProto] = []
        if name not in self._rounded:
            self._rounded[name] = self._round(name, nodes, as_integers=form is not None)
        node.input[INPUT] = self._rounded[name]
        bias = None if form is None else self._bias(place, self.grids[name], form)
        if bias is not None:
            nodes.append(bias)
            node.input[_BIAS] = bias.output[0]
        return [*nodes, node]

    def _round(self, name: str, nodes: list[NodeProto], *, as_integers: bool) -> str:
        grid, source = self.grids[name], name
        if not as_integers:
            # No more than a minimum, since below the grid's integers uint8 ends too. It also keeps onnxruntime from
            # rounding the float weight of a layer between two pairs to 8 bits of its own, as it does behind a Clip.
            high = self.editor.store(self.main, f"{name}_high", np.array(grid.limits[1], np.float32))
            source = self.editor.fresh(f"{name}_bounded")
            nodes.append(helper.make_node("Min", [name, high], [source], name=f"{source}_min"))
        parameters = [
            self.editor.store(self.main, f"{name}_scale", np.array(grid.scale, np.float32)),
            self.editor.store(self.main, f"{name}_zero_point", np.array(grid.zero, np.uint8)),
        ]
        integers, rounded = self.editor.fresh(f"{name}_integers"), self.editor.fresh(f"{name}_rounded")
        nodes += [
            helper.make_node("QuantizeLinear", [source, *parameters], [integers], name=f"{integers}_quantize"),
            helper.make_node("DequantizeLinear", [integers, *parameters], [rounded], name=f"{rounded}_dequantize"),
        ]
        return rounded

    def _bias(self, place: Place, entering: ActivationGrid, form: UniformWeight) -> NodeProto | None:
        """The layer's bias as multiples of what one product of integers stands for."""
        value = self.editor.index.read(place, _BIAS)
        if value is None or not _is_own_bias(self.editor.index, place, value):
            return None
        bias = array(self.editor.index.stored[value]).astype(np.float64)
        scale = np.float32(entering.scale) * form.parameters.scale.reshape(-1)
        scale = np.asarray(np.broadcast_to(scale, bias.shape), np.float32)
        integers = np.rint(bias / scale)
        if not np.all((_INT32.min <= integers) & (integers <= _INT32.max)):
            return None
        self._biases.append(value)
        return self._dequantized(value.name, (integers.astype(np.int32), scale, np.zeros(bias.shape, np.int32)), 0)

    def _store_weight(self, name: str, weight: Weight, form: UniformWeight) -> None:
        per_channel = form.parameters.scale.size > 1
        shape = (-1,) if per_channel else ()
        integers = weight.from_matrix(form.integers)
        parts = (integers, form.parameters.scale.reshape(shape), form.zeros.reshape(shape))
        node = self._dequantized(name, parts, weight.order[0])
        node.output[0] = name
        self.editor.replace_stored(Value(self.main, name), [node])

    def _dequantized(self, name: str, parts: tuple[Array, Array, Array], axis: int) -> NodeProto:
        stored = [
            self.editor.store(self.main, f"{name}_{suffix}", part)
            for suffix, part in zip(("quantized", "scale", "zero_point"), parts, strict=True)
        ]
        restored = self.editor.fresh(f"{name}_restored")
        return helper.make_node("DequantizeLinear", stored, [restored], name=f"{restored}_dequantize", axis=axis)


def _is_own_bias(index: Index, place: Place, value: Value) -> bool:
    """Whether nothing else reads it, and the layer adds it as a vector and as it is."""
    if value not in index.stored or len(index.readers[value]) > 1 or len(index.stored[value].dims) != 1:
        return False
    return all(float_attribute(place.node, name, 1.0) == 1.0 for name in ("alpha", "beta"))
