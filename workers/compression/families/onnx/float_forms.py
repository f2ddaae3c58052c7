"""Weights as narrower floats, cast back by the graph: onnxruntime folds that when it loads the model.

Rows of tables are cast when they are looked up. 8-bit floats are stored in ONNX's own types from the opset on that has
them; in older graphs, and in tables, whose ``Gather`` takes no such type, they are bytes that name one of the type's
256 numbers. (``DequantizeLinear`` is not used: onnxruntime 1.32 does not fold it.)
"""

import numpy as np
from onnx import TensorProto

from workers.compression.families.model import Array
from workers.compression.families.onnx.chains import Chain
from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.float_weights import FloatWeight
from workers.compression.families.onnx.matrices import is_lookup
from workers.compression.families.onnx.table_forms import look_up
from workers.compression.families.onnx.walking import layer_name
from workers.compression.families.weights import FloatForm, Weight
from workers.compression.quantization.narrow_floats import DTYPES

FLOAT8_OPSET = 19
BFLOAT16_OPSET = 13

_WIDE_ENOUGH = {"float16", "bfloat16"}


def store_floats(editor: Editor, found: FloatWeight, weight: Weight, form: FloatForm) -> None:
    """Stores a weight in the type of the form."""
    values = weight.from_matrix(form.values).astype(DTYPES[form.dtype])
    if form.scale is None and form.dtype in _WIDE_ENOUGH:
        store_cast(editor, found, values)
    else:
        _store_scaled(editor, found, weight, form, values)


def store_cast(editor: Editor, found: FloatWeight, values: Array) -> None:
    """Stores a tensor of any rank as ``values`` of a 16-bit type."""
    value = found.value
    chain = Chain(editor, value.scope, value.name)
    stored = chain.store(values.dtype.name, values)
    lookups = [reader.place for reader in found.readers if is_lookup(reader)]
    for place in lookups:
        rows = Chain(editor, place.scope, value.name)
        rows.add("Cast", rows.look_up(stored, place.node.input[1], layer_name(place.node)), to=TensorProto.FLOAT)
        editor.replace(place, rows.ending(place.node.output[0]))
    if len(found.readers) > len(lookups):
        chain.add("Cast", stored, to=TensorProto.FLOAT)
        chain.ending(value.name)
    editor.replace_stored(value, chain.nodes)


def _store_scaled(editor: Editor, found: FloatWeight, weight: Weight, form: FloatForm, values: Array) -> None:
    value, dtype = found.value, DTYPES[form.dtype]
    lookups = [reader.place for reader in found.readers if is_lookup(reader)] if len(weight.shape) == 2 else []
    chain = Chain(editor, value.scope, value.name)
    typed = form.dtype in _WIDE_ENOUGH or (not lookups and editor.index.opsets.get("", 0) >= FLOAT8_OPSET)
    stored = chain.store(form.dtype if typed else "codes", values if typed else values.view(np.uint8))
    scale = None if form.scale is None else chain.store("scale", _beside(weight, form.scale))
    by_row = form.scale is not None and form.scale.size > 1

    def restored(steps: Chain, numbers: str, factor: str | None) -> str:
        numbers = steps.add("Cast", numbers, to=TensorProto.FLOAT) if typed else _named(steps, numbers, dtype)
        return numbers if factor is None else steps.add("Mul", numbers, factor)

    def looked_up(steps: Chain, rows: str, name: str) -> str:
        numbers = steps.look_up(stored, rows, name)
        return restored(steps, numbers, steps.look_up(scale, rows) if scale is not None and by_row else scale)

    for place in lookups:
        look_up(editor, place, weight.shape[1], looked_up)
    if len(found.readers) > len(lookups):
        restored(chain, stored, scale)
        chain.ending(value.name)
    editor.replace_stored(value, chain.nodes)


def _named(chain: Chain, codes: str, dtype: np.dtype[np.generic]) -> str:
    """The number of an 8-bit type that each byte stands for; those that are not finite occur in no weight."""
    numbers = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
    halves = np.where(np.isfinite(numbers), numbers, np.float32(0.0)).astype(np.float16)
    book = chain.add("Cast", chain.share("numbers", halves), to=TensorProto.FLOAT)
    return chain.add("Gather", book, chain.add("Cast", codes, to=TensorProto.INT32))


def _beside(weight: Weight, scale: np.ndarray) -> Array:
    """Scales, one per row of the matrix or one for all, in a shape that broadcasts against the stored weight."""
    if scale.size == 1:
        return scale.reshape(())
    outputs = [weight.shape[axis] for axis in weight.order[: weight.leading]]
    permuted = scale.reshape([*outputs, *(1 for _ in weight.order[weight.leading :])])
    return permuted.transpose(np.argsort(weight.order))
