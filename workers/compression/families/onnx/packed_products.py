"""Products with large matrices of 4-bit groups, computed by onnxruntime's ``MatMulNBits`` on the packed weights.

Speed against the float product at 1, 8, 64 and 512 rows: groups of 32, one thread, AVX2 without VNNI, onnxruntime 1.32.

===============  =======================  ======================
inputs, outputs  activations in 8 bits    activations in float
===============  =======================  ======================
384, 1536        1.7  1.0  1.0  0.99      0.39  0.44  0.88  1.0
768, 3072        4.0  2.2  1.4  0.88      0.56  0.67  0.92  1.0
2048, 2048       4.4  2.0  1.0  0.99      0.74  0.65  0.92  1.0
4096, 4096       17   2.1  1.0  1.0       1.1   0.71  0.86  1.0
===============  =======================  ======================

Folded weights run at 1.0 and exactly, so small matrices are folded. Of large ones ``MatMulNBits`` reads a seventh of
the bytes; the model loads at once and takes as little memory as its file. Activations are rounded to 8 bits by blocks
as long as the groups, which adds noise 45 dB below the product, where 4-bit weights err at 20 dB; onnxruntime does the
same by default with a ``DequantizeLinear`` of 4-bit blocks before a ``MatMul``. (With 8-bit weights the kernel takes up
to ten times as long as the float product, so these are always folded.)
"""

from typing import Any

import numpy as np
from onnx import NodeProto, helper

from workers.compression.coding.packing import Codes, pack
from workers.compression.families.onnx.chains import Chain
from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.float_weights import FloatWeight
from workers.compression.families.onnx.uniform_forms import Coded
from workers.compression.families.onnx.walking import STANDARD, Reader, float_attribute, integer_attribute, layer_name
from workers.compression.families.weights import Weight
from workers.compression.quantization.uniform import UniformWeight

DOMAIN = "com.microsoft"
LARGE = 1 << 21
"""Elements from which on a matrix stays packed."""

_BITS = 4
_GROUPS = frozenset({16, 32, 64, 128, 256})
_SYMMETRIC_ZERO = 1 << (_BITS - 1)
_ACTIVATIONS_IN_8_BITS = 4


def stays_packed(found: FloatWeight, weight: Weight, form: UniformWeight) -> bool:
    """Whether ``store_packed`` serves a weight in a form, and is better than folding it."""
    height, group = form.blocks.lengths
    return (
        weight.size >= LARGE
        and len(weight.shape) == 2
        and form.grid.bits == _BITS
        and form.parameters.offset is None
        and height == 1
        and group in _GROUPS
        and all(_multiplies(reader) for reader in found.readers)
        and len({_outputs_first(reader) for reader in found.readers}) == 1
    )


def store_packed(editor: Editor, found: FloatWeight, form: UniformWeight) -> None:
    """Replaces the products with a weight."""
    value = found.value
    coded = Coded.of(form)
    (outputs, inputs), (_, groups) = coded.blocks.shape, coded.blocks.counts
    group = coded.blocks.lengths[1]
    chain = Chain(editor, value.scope, value.name)
    codes = np.full((outputs, groups * group), _SYMMETRIC_ZERO, np.uint8)
    codes[:, :inputs] = coded.codes
    stored = [chain.store("packed", pack(codes, _BITS).reshape(outputs, groups, -1))]
    stored.append(chain.floats("scale", coded.scales.reshape(-1)))
    zeros = coded.zeros
    if zeros is None or (zeros != _SYMMETRIC_ZERO).any():
        stored.append(chain.store("zero", _packed_zeros(np.zeros_like(codes[:, :groups]) if zeros is None else zeros)))
    sizes = {"K": inputs, "N": outputs, "bits": _BITS, "block_size": group, "accuracy_level": _ACTIVATIONS_IN_8_BITS}
    for reader in found.readers:
        editor.replace(reader.place, _product(editor, reader.place.node, stored, sizes))
    editor.replace_stored(value, chain.nodes)
    editor.import_domain(DOMAIN)


def _product(editor: Editor, node: NodeProto, stored: list[str], sizes: dict[str, Any]) -> list[NodeProto]:
    name = layer_name(node)
    bias = node.input[2] if len(node.input) > 2 else ""
    made = editor.fresh("product") if bias else node.output[0]
    product = helper.make_node("MatMulNBits", [node.input[0], *stored], [made], name=name, domain=DOMAIN, **sizes)
    if not bias:
        return [product]
    return [product, helper.make_node("Add", [made, bias], [node.output[0]], name=f"{name}/bias")]


def _packed_zeros(zeros: Codes) -> Codes:
    """Each row's zero points in whole bytes, flat."""
    padded = np.zeros((zeros.shape[0], -(-zeros.shape[1] // 2) * 2), np.uint8)
    padded[:, : zeros.shape[1]] = zeros
    return pack(padded, _BITS)


def _multiplies(reader: Reader) -> bool:
    """Whether a node is a plain product with the weight on its right, plus a bias at most."""
    node = reader.place.node
    if reader.slot != 1 or node.domain not in STANDARD or node.input[0] == node.input[1]:
        return False
    if node.op_type != "Gemm":
        return node.op_type == "MatMul"
    plain = not integer_attribute(node, "transA", 0) and float_attribute(node, "alpha", 1.0) == 1.0
    return plain and (len(node.input) < 3 or float_attribute(node, "beta", 1.0) == 1.0)


def _outputs_first(reader: Reader) -> bool:
    return reader.place.node.op_type == "Gemm" and bool(integer_attribute(reader.place.node, "transB", 0))
