"""Dynamic 8-bit quantization of ONNX models with standard operators.

Matrix products with a stored right side become ``MatMulInteger`` on activations that ``DynamicQuantizeLinear``
quantizes on the fly, embedding tables become integer rows with a scale each. Convolutions keep computing in float:
onnxruntime's ``ConvInteger`` is several times slower than its float kernel, so only their storage shrinks.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.onnx.editing import Editor, raise_opset
from workers.compression.families.onnx.float_weights import FloatWeight, float_weights, is_selected
from workers.compression.families.onnx.model import as_onnx
from workers.compression.families.onnx.walking import (
    Place,
    Scope,
    array,
    float_attribute,
    integer_attribute,
    layer_name,
)
from workers.compression.registry import implements
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.quantize import DynamicQuantize
from workers.compression.techniques.quantize.affine import Grid, Quantized, quantize
from workers.compression.techniques.quantize.onnx_storage import STORED, store_as_integers
from workers.compression.techniques.quantize.targets import weight_grid

OPSET = 11
SMALLEST_WEIGHT = 1024
"""Scales and zero points would eat what quantizing fewer elements saves."""

_PRODUCT = "matrix products of integers"


@dataclass
class _Work:
    """State of one run."""

    editor: Editor
    spec: DynamicQuantize
    grid: Grid
    activations: dict[tuple[Scope, str], tuple[str, str, str]] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)


@implements(DynamicQuantize, formats=(ModelFormat.ONNX,))
def quantize_dynamically(model: Model, spec: DynamicQuantize, context: Context) -> Model:
    """Replaces every selected weight of ``model`` in place."""
    model = as_onnx(model)
    raise_opset(model.proto, OPSET)
    work = _Work(Editor(model.proto), spec, weight_grid(context.target, spec.scheme))
    candidates = list(float_weights(work.editor.index, SMALLEST_WEIGHT))
    weights = [weight for weight in candidates if is_selected(weight, spec.include, spec.exclude)]
    for count, weight in enumerate(weights):
        _quantize_weight(work, weight, context)
        context.progress((count + 1) / len(weights), weight.layer)
    if not work.done:
        raise UnsupportedTechnique(_why_nothing(len(candidates)), hint="Look at the model's layers for their names.")
    work.editor.apply()
    model.changed()
    _report(work, context)
    return model


def _quantize_weight(work: _Work, weight: FloatWeight, context: Context) -> None:
    values = array(weight.tensor).astype(np.float32)
    if not np.isfinite(values).all():
        context.warn(f"{weight.layer} stays float: its weight {weight.value.name} holds NaN or infinity.")
        return
    if all(_is_matrix_product(reader.place, reader.slot) for reader in weight.readers) and values.ndim == 2:
        _multiply_integers(work, weight, values)
        work.done[_PRODUCT] += 1
    else:
        work.done[store_as_integers(work.editor, weight, values, work.spec.granularity)] += 1


def _is_matrix_product(place: Place, slot: int) -> bool:
    node = place.node
    if slot != 1 or len(set(node.input)) < 2:
        return False
    if node.op_type == "MatMul":
        return True
    plain = float_attribute(node, "alpha", 1.0) == 1.0 and float_attribute(node, "beta", 1.0) == 1.0
    return node.op_type == "Gemm" and plain and not integer_attribute(node, "transA", 0)


def _multiply_integers(work: _Work, weight: FloatWeight, values: npt.NDArray[np.float32]) -> None:
    stored: dict[bool, tuple[str, str, str]] = {}
    for reader in weight.readers:
        transposed = bool(integer_attribute(reader.place.node, "transB", 0))
        if transposed not in stored:
            columns = np.ascontiguousarray(values.T) if transposed else values
            axes = (0,) if work.spec.granularity == "channel" else None
            stored[transposed] = _store(work.editor, weight, quantize(columns, work.grid, axes))
        work.editor.replace(reader.place, _integer_product(work, reader.place, stored[transposed]))
    work.editor.drop_unread([weight.value])


def _store(editor: Editor, weight: FloatWeight, quantized: Quantized) -> tuple[str, str, str]:
    scope, name = weight.value.scope, weight.value.name
    zero = quantized.zero if np.any(quantized.zero != quantized.zero.flat[0]) else quantized.zero.flat[:1].reshape(())
    return (
        editor.store(scope, f"{name}_quantized", quantized.values),
        editor.store(
            scope,
            f"{name}_scale",
            quantized.scale.reshape(-1) if quantized.scale.size > 1 else quantized.scale.reshape(()),
        ),
        editor.store(scope, f"{name}_zero_point", zero.reshape(-1) if zero.size > 1 else zero),
    )


def _integer_product(work: _Work, place: Place, stored: tuple[str, str, str]) -> list[NodeProto]:
    """The operators that onnxruntime fuses to one ``DynamicQuantizeMatMul`` or ``MatMulIntegerToFloat``."""
    node, name, editor = place.node, layer_name(place.node), work.editor
    weights, weight_scale, weight_zero = stored
    key = (place.scope, node.input[0])
    nodes: list[NodeProto] = []
    if key not in work.activations:
        parts = tuple(editor.fresh(f"{node.input[0]}_{part}") for part in ("quantized", "scale", "zero_point"))
        work.activations[key] = (parts[0], parts[1], parts[2])
        nodes.append(helper.make_node("DynamicQuantizeLinear", [node.input[0]], parts, name=f"{name}/quantize"))
    rows, row_scale, row_zero = work.activations[key]
    bias = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 else ""
    total, real, scale = (editor.fresh(f"{node.output[0]}_{part}") for part in ("integer", "cast", "scales"))
    product = editor.fresh(f"{node.output[0]}_product") if bias else node.output[0]
    nodes += [
        helper.make_node("MatMulInteger", [rows, weights, row_zero, weight_zero], [total], name=name),
        helper.make_node("Cast", [total], [real], name=f"{name}/cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [row_scale, weight_scale], [scale], name=f"{name}/scales"),
        helper.make_node("Mul", [real, scale], [product], name=f"{name}/restore"),
    ]
    if bias:
        nodes.append(helper.make_node("Add", [product, bias], [node.output[0]], name=f"{name}/bias"))
    return nodes


def _why_nothing(candidates: int) -> str:
    if candidates:
        return f"The include and exclude globs leave none of the model's {candidates} quantizable weights."
    return (
        f"The model has no float32 weight of at least {SMALLEST_WEIGHT} elements in a matrix product, convolution, "
        "recurrence or embedding: it is already quantized, or too small to gain from it."
    )


def _report(work: _Work, context: Context) -> None:
    for kind, count in sorted(work.done.items()):
        context.changed(f"{count} {kind}")
    grid = work.grid
    context.log(f"weights of matrix products: {'int8' if grid.signed else 'uint8'}, {grid.bits} bits of range")
    if work.done[STORED]:
        context.warn(
            f"{work.done[STORED]} weights shrink in the file only: convolutions and recurrences are restored to float "
            "when the model is loaded, because their integer kernels with ranges found on the fly are slower."
        )
