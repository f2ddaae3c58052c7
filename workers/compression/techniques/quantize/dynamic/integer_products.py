"""Matrix products on integers, activations quantized on the fly, in standard ONNX operators."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper

from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.float_weights import FloatWeight
from workers.compression.families.onnx.walking import (
    Place,
    Scope,
    float_attribute,
    integer_attribute,
    layer_name,
)
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.uniform import Grid, UniformWeight, quantize

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


@dataclass(frozen=True, eq=False)
class Rounding:
    """How a product's weight is rounded, and what its activation's channels are divided by before."""

    grid: Grid
    factors: Floats | None = None


@dataclass
class ProductWriter:
    """Replaces matrix products; each activation is quantized once per graph, however many products read it.

    Args:
        default: For weights that ``chosen`` does not name.
        granularity: ``channel`` (a scale per output column) or ``tensor``.
        chosen: By names of weights of the main graph.
    """

    editor: Editor
    default: Rounding
    granularity: str
    chosen: dict[str, Rounding]
    _rounded: dict[tuple[Scope, str, bool], _Names] = field(default_factory=dict)

    def write(self, weight: FloatWeight, values: Floats) -> None:
        """Makes every reader of ``weight`` multiply integers."""
        in_main_graph = weight.value.scope.parent is None
        rounding = self.chosen.get(weight.value.name, self.default) if in_main_graph else self.default
        stored: dict[bool, _Names] = {}
        for reader in weight.readers:
            transposed = bool(integer_attribute(reader.place.node, "transB", 0))
            if transposed not in stored:
                columns = np.ascontiguousarray(values.T) if transposed else values
                stored[transposed] = self._store(weight, columns, rounding)
            self.editor.replace(reader.place, self._product(reader.place, stored[transposed], rounding.factors))
        self.editor.drop_unread([weight.value])

    def _store(self, weight: FloatWeight, columns: Floats, rounding: Rounding) -> _Names:
        scope, name = weight.value.scope, weight.value.name
        if rounding.factors is not None:
            columns = columns * rounding.factors[:, None]
        axes = (0,) if self.granularity == "channel" else None
        quantized = quantize(columns, rounding.grid, Blocks.spanning(columns.shape, axes))
        return (
            self.editor.store(scope, f"{name}_quantized", quantized.integers),
            self.editor.store(scope, f"{name}_scale", _flat(quantized.parameters.scale)),
            self.editor.store(scope, f"{name}_zero_point", _flat(_common_zero(quantized))),
        )

    def _product(self, place: Place, stored: _Names, factors: Floats | None) -> list[NodeProto]:
        """The operators that onnxruntime fuses to one ``DynamicQuantizeMatMul`` or ``MatMulIntegerToFloat``."""
        node, name, editor = place.node, layer_name(place.node), self.editor
        nodes, (rows, row_scale, row_zero) = self._activation(place, factors)
        bias = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 else ""
        total, real, scale = (editor.fresh(f"{node.output[0]}_{part}") for part in ("integer", "cast", "scales"))
        product = editor.fresh(f"{node.output[0]}_product") if bias else node.output[0]
        nodes += [
            helper.make_node("MatMulInteger", [rows, stored[0], row_zero, stored[2]], [total], name=name),
            helper.make_node("Cast", [total], [real], name=f"{name}/cast", to=TensorProto.FLOAT),
            helper.make_node("Mul", [row_scale, stored[1]], [scale], name=f"{name}/scales"),
            helper.make_node("Mul", [real, scale], [product], name=f"{name}/restore"),
        ]
        if bias:
            nodes.append(helper.make_node("Add", [product, bias], [node.output[0]], name=f"{name}/bias"))
        return nodes

    def _activation(self, place: Place, factors: Floats | None) -> tuple[list[NodeProto], _Names]:
        """The names of the rounded left side, and the nodes that make it where none has before."""
        source, name, editor = place.node.input[0], layer_name(place.node), self.editor
        key = (place.scope, source, factors is not None)
        if key in self._rounded:
            return [], self._rounded[key]
        nodes: list[NodeProto] = []
        if factors is not None:
            smooth = editor.fresh(f"{source}_smooth")
            factor = editor.store(place.scope, f"{source}_smoothing", (1.0 / factors).astype(np.float32))
            nodes.append(helper.make_node("Mul", [source, factor], [smooth], name=f"{name}/smooth"))
            source = smooth
        parts = (editor.fresh(f"{source}_quantized"), editor.fresh(f"{source}_scale"), editor.fresh(f"{source}_zero"))
        nodes.append(helper.make_node("DynamicQuantizeLinear", [source], parts, name=f"{name}/quantize"))
        self._rounded[key] = parts
        return nodes, parts


def _flat(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    return values.reshape(-1) if values.size > 1 else values.reshape(())


def _common_zero(quantized: UniformWeight) -> npt.NDArray[np.generic]:
    zeros = quantized.zeros
    first = zeros.reshape(-1)[:1]
    return first if np.all(zeros == first) else zeros
