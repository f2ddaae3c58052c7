"""Rewrites that store a weight in fewer bits, whatever reads it: the graph restores it from standard operators.

``Cast`` and ``Mul`` over constants are folded when onnxruntime loads the model (``DequantizeLinear`` is not: it waits
for a quantized operator to fuse with), so the layer runs at float speed on the restored weight.
"""

import numpy as np
from onnx import TensorProto, helper

from workers.compression.families.model import Array
from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.walking import Place, Value, integer_attribute, layer_name


def store_scaled(editor: Editor, value: Value, integers: Array, scale: Array) -> None:
    """Stores ``value`` as ``integers * scale``; the scale broadcasts."""
    stored = editor.store(value.scope, f"{value.name}_quantized", integers)
    factor = editor.store(value.scope, f"{value.name}_scale", scale.astype(np.float32))
    cast = editor.fresh(f"{value.name}_cast")
    editor.replace_stored(
        value,
        [
            helper.make_node("Cast", [stored], [cast], name=editor.fresh(f"{cast}_node"), to=TensorProto.FLOAT),
            helper.make_node("Mul", [cast, factor], [value.name], name=editor.fresh(f"{value.name}_restore")),
        ],
    )


def store_float16(editor: Editor, value: Value, halves: Array) -> None:
    """Stores ``value`` in half precision."""
    stored = editor.store(value.scope, f"{value.name}_float16", halves)
    name = editor.fresh(f"{value.name}_restore")
    editor.replace_stored(value, [helper.make_node("Cast", [stored], [value.name], name=name, to=TensorProto.FLOAT)])


def store_rows(editor: Editor, value: Value, lookups: list[Place], integers: Array, scale: Array) -> None:
    """Stores an embedding table as integer rows, each with a scale; looked-up rows alone are restored, at run time.

    Args:
        integers: Shape (rows, width).
        scale: Shape (rows, 1).
    """
    table = editor.store(value.scope, f"{value.name}_quantized", integers)
    factors = editor.store(value.scope, f"{value.name}_scale", scale.astype(np.float32))
    for place in lookups:
        node, name = place.node, layer_name(place.node)
        axis = integer_attribute(node, "axis", 0)
        rows, cast, factor = (editor.fresh(f"{node.output[0]}_{part}") for part in ("rows", "cast", "scale"))
        editor.replace(
            place,
            [
                helper.make_node("Gather", [table, node.input[1]], [rows], name=name, axis=axis),
                helper.make_node("Cast", [rows], [cast], name=f"{name}/cast", to=TensorProto.FLOAT),
                helper.make_node("Gather", [factors, node.input[1]], [factor], name=f"{name}/scale", axis=axis),
                helper.make_node("Mul", [cast, factor], [node.output[0]], name=f"{name}/restore"),
            ],
        )
    editor.drop_unread([value])
