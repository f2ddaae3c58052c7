"""Weights as narrower floats, cast back by the graph: onnxruntime folds that when it loads the model.

Rows of tables are cast when they are looked up. 8-bit floats are stored in ONNX's own types from the opset on that has
them; in older graphs, and in tables, whose ``Gather`` takes no such type, they are bytes that name one of the type's
256 numbers. (``DequantizeLinear`` is not used: onnxruntime 1.32 does not fold it.)
"""

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from workers.compression.families.model import Array
from workers.compression.families.onnx.chains import Chain
from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.table_forms import look_up
from workers.compression.families.onnx.walking import Place, Value
from workers.compression.families.weights import FloatForm, Weight
from workers.compression.quantization.narrow_floats import DTYPES

FLOAT8_OPSET = 19
BFLOAT16_OPSET = 13

_WIDE_ENOUGH = {"float16", "bfloat16"}


def store_floats(editor: Editor, value: Value, weight: Weight, form: FloatForm, lookups: Sequence[Place]) -> None:
    """Stores ``value`` in the type of the form.

    Args:
        lookups: The ``Gather`` nodes along its first axis; other readers may be there too.
    """
    chain = Chain(editor, value.scope, value.name)
    dtype = DTYPES[form.dtype]
    values = weight.from_matrix(form.values).astype(dtype)
    typed = form.dtype in _WIDE_ENOUGH or (not lookups and editor.index.opsets.get("", 0) >= FLOAT8_OPSET)
    stored = chain.store(form.dtype if typed else "codes", values if typed else values.view(np.uint8))
    scale = None if form.scale is None else chain.store("scale", _beside(weight, form.scale))

    def restored(steps: Chain, found: str, factor: str | None) -> str:
        numbers = steps.add("Cast", found, to=TensorProto.FLOAT) if typed else _named(steps, found, dtype)
        return numbers if factor is None else steps.add("Mul", numbers, factor)

    def looked_up(steps: Chain, rows: str, name: str) -> str:
        found = steps.add("Gather", stored, rows, axis=0)
        steps.nodes[-1].name = name
        by_row = scale is not None and form.scale is not None and form.scale.size > 1
        return restored(steps, found, steps.add("Gather", scale, rows, axis=0) if by_row and scale else scale)

    for place in lookups:
        look_up(editor, place, weight.shape[1], looked_up)
    if len(editor.index.readers.get(value, [])) > len(lookups):
        restored(chain, stored, scale)
        chain.ending(value.name)
    editor.replace_stored(value, chain.nodes)


def store_cast(editor: Editor, value: Value, values: Array) -> None:
    """Stores a tensor of any rank as ``values`` of a 16-bit type."""
    chain = Chain(editor, value.scope, value.name)
    chain.add("Cast", chain.store(values.dtype.name, values), to=TensorProto.FLOAT)
    editor.replace_stored(value, chain.ending(value.name))


def _named(chain: Chain, codes: str, dtype: np.dtype[np.generic]) -> str:
    """The number of an 8-bit type that each byte stands for; those that are not finite occur in no weight."""
    numbers = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
    halves = np.where(np.isfinite(numbers), numbers, np.float32(0.0)).astype(np.float16)
    book = chain.add("Cast", chain.editor.share("numbers", halves), to=TensorProto.FLOAT)
    return chain.add("Gather", book, chain.add("Cast", codes, to=TensorProto.INT32))


def _beside(weight: Weight, scale: np.ndarray) -> Array:
    """Scales, one per row of the matrix or one for all, in a shape that broadcasts against the stored weight."""
    if scale.size == 1:
        return scale.reshape(())
    outputs = [weight.shape[axis] for axis in weight.order[: weight.leading]]
    permuted = scale.reshape([*outputs, *(1 for _ in weight.order[weight.leading :])])
    return permuted.transpose(np.argsort(weight.order))
