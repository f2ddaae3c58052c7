"""Matrix products on integers, activations quantized on the fly, in standard ONNX operators."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper

from workers.compression.families.onnx.chains import Chain
from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.float_weights import FloatWeight
from workers.compression.families.onnx.walking import (
    Place,
    Scope,
    array,
    float_attribute,
    integer_attribute,
    layer_name,
)
from workers.compression.techniques.quantize.integer_layers.plan import Choice
from workers.compression.techniques.quantize.integer_layers.rounding import RoundedWeight, nearest
from workers.compression.techniques.quantize.integer_layers.shifting import shift_addition, smoothed
from workers.compression.techniques.quantize.targets import WeightKind

Floats = npt.NDArray[np.float32]
_Names = tuple[str, str, str]
"""Integers, scale and zero point."""


def is_matrix_product(place: Place, slot: int) -> bool:
    """Whether the stored matrix at ``slot`` is the right side of a plain matrix product."""
    node = place.node
    if slot != 1 or len(set(node.input)) < 2:
        return False
    if node.op_type == "MatMul":
        return True
    plain = float_attribute(node, "alpha", 1.0) == 1.0 and float_attribute(node, "beta", 1.0) == 1.0
    return node.op_type == "Gemm" and plain and not integer_attribute(node, "transA", 0)


@dataclass
class ProductWriter:
    """Replaces matrix products; each activation is quantized once per graph, however many products read it.

    Args:
        kind: Of the integers of weights that ``chosen`` does not name.
        granularity: ``channel`` (a scale per output column) or ``tensor``.
        chosen: What calibration chose, by names of weights of the main graph.
    """

    editor: Editor
    kind: WeightKind
    granularity: str
    chosen: dict[str, Choice]
    _rounded: dict[tuple[Scope, str, bool], _Names] = field(default_factory=dict)
    _halves: set[str] = field(default_factory=set)

    def write(self, weight: FloatWeight, values: Floats) -> None:
        """Makes every reader of ``weight`` multiply integers."""
        in_main_graph = weight.value.scope.parent is None
        choice = self.chosen.get(weight.value.name) if in_main_graph else None
        stored: dict[bool, _Names] = {}
        for reader in weight.readers:
            transposed = bool(integer_attribute(reader.place.node, "transB", 0))
            if transposed not in stored:
                axis = 0 if transposed else 1
                rounded = choice.weight if choice else nearest(values, self.kind, axis, self.granularity)
                stored[transposed] = self._store(weight, rounded)
            self.editor.replace(reader.place, self._product(reader.place, stored[transposed], choice))
        if choice is not None:
            shift_addition(self.editor, choice)
        unread = (
            [weight.value] if choice is None or choice.candidate.bias is None else [weight.value, choice.candidate.bias]
        )
        self.editor.drop_unread(unread)

    def _store(self, weight: FloatWeight, rounded: RoundedWeight) -> _Names:
        scope, name = weight.value.scope, weight.value.name
        columns = rounded.integers if rounded.axis == 1 else np.ascontiguousarray(rounded.integers.T)
        halves = rounded.scale.astype(np.float16)
        is_half = halves.size > 1 and np.array_equal(halves.astype(np.float32), rounded.scale)
        scale = self.editor.store(scope, f"{name}_scale", halves if is_half else rounded.scale)
        if is_half:
            self._halves.add(scale)
        return (
            self.editor.store(scope, f"{name}_quantized", columns),
            scale,
            self.editor.store(scope, f"{name}_zero_point", _common(rounded.zero)),
        )

    def _product(self, place: Place, stored: _Names, choice: Choice | None) -> list[NodeProto]:
        """The operators that onnxruntime fuses to one ``DynamicQuantizeMatMul`` or ``MatMulIntegerToFloat``."""
        node, editor = place.node, self.editor
        chain = Chain(editor, place.scope, layer_name(node))
        rows, row_scale, row_zero = self._activation(place, choice, chain)
        total = chain.add("MatMulInteger", rows, stored[0], row_zero, stored[2])
        chain.nodes[-1].name = layer_name(node)
        real = chain.add("Cast", total, to=TensorProto.FLOAT)
        product = chain.add("Mul", real, chain.add("Mul", row_scale, self._scale(chain, stored[1])))
        bias = self._bias(place, choice)
        if bias:
            chain.add("Add", product, bias)
        return chain.ending(node.output[0])

    def _scale(self, chain: Chain, name: str) -> str:
        """The scales of a weight's columns as float32."""
        return chain.add("Cast", name, to=TensorProto.FLOAT) if name in self._halves else name

    def _bias(self, place: Place, choice: Choice | None) -> str:
        """Name of the bias that a ``Gemm`` adds, corrected where that was chosen; empty where there is none."""
        node = place.node
        if node.op_type != "Gemm" or len(node.input) < 3 or not node.input[2]:
            return ""
        if choice is None or choice.shift is None or choice.candidate.bias is None:
            return str(node.input[2])
        bias = choice.candidate.bias
        corrected = array(self.editor.index.stored[bias]).astype(np.float32) + choice.shift
        return self.editor.store(place.scope, f"{bias.name}_corrected", corrected)

    def _activation(self, place: Place, choice: Choice | None, chain: Chain) -> _Names:
        """The names of the rounded left side; what makes it goes into ``chain`` where nothing has made it before."""
        source, factors = place.node.input[0], None if choice is None else choice.factors
        key = (place.scope, source, factors is not None)
        if key not in self._rounded:
            entering = source if factors is None else smoothed(chain, source, factors)
            parts = (self.editor.fresh("rounded"), self.editor.fresh("step"), self.editor.fresh("zero"))
            chain.nodes.append(helper.make_node("DynamicQuantizeLinear", [entering], parts))
            self._rounded[key] = parts
        return self._rounded[key]


def _common(zeros: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """A single zero point where all are the same."""
    first = zeros.reshape(-1)[:1]
    return first.reshape(()) if np.all(zeros == first) else zeros
