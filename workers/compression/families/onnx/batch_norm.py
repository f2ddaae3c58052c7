"""Folds batch normalization into the convolution before it: integer convolutions leave no room for it behind them."""

import numpy as np
from onnx import ModelProto, helper

from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.walking import Index, Place, Value, array, float_attribute, layer_name


def fold_batch_norms(proto: ModelProto) -> int:
    """Folds every ``Conv -> BatchNormalization`` with stored parameters, in place; returns how many there were."""
    editor = Editor(proto)
    folded = 0
    for place in editor.index.places:
        if place.node.op_type == "Conv":
            following = _lone_batch_norm(editor.index, place)
            if following is not None:
                _fold(editor, place, following)
                folded += 1
    if folded:
        editor.apply()
    return folded


def _lone_batch_norm(index: Index, conv: Place) -> Place | None:
    made = index.made(conv)
    readers = index.readers.get(made, [])
    if len(readers) != 1 or readers[0].slot != 0 or made in index.outputs:
        return None
    norm = readers[0].place
    if norm.node.op_type != "BatchNormalization" or norm.scope is not conv.scope or len(norm.node.output) != 1:
        return None
    parameters = [index.tensor(norm, slot) for slot in range(1, 5)]
    weight = index.read(conv, 1)
    owned = weight is not None and weight in index.stored and len(index.readers[weight]) == 1
    bias_stored = len(conv.node.input) < 3 or not conv.node.input[2] or index.tensor(conv, 2) is not None
    return norm if owned and bias_stored and all(tensor is not None for tensor in parameters) else None


def _fold(editor: Editor, conv: Place, norm: Place) -> None:
    index, name = editor.index, layer_name(conv.node)
    gamma, beta, mean, variance = (_stored(index, norm, slot) for slot in range(1, 5))
    factor = gamma / np.sqrt(variance + float_attribute(norm.node, "epsilon", 1e-5))
    weight = _stored(index, conv, 1)
    bias = _stored(index, conv, 2) if len(conv.node.input) > 2 and conv.node.input[2] else np.zeros_like(mean)
    scaled = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    shifted = (bias - mean) * factor + beta
    inputs = [
        conv.node.input[0],
        editor.store(conv.scope, f"{conv.node.input[1]}_folded", scaled.astype(np.float32)),
        editor.store(conv.scope, f"{name}_bias_folded", shifted.astype(np.float32)),
    ]
    node = helper.make_node("Conv", inputs, [norm.node.output[0]], name=name)
    node.attribute.extend(conv.node.attribute)
    editor.replace(conv, [node])
    editor.replace(norm, [])
    values = [index.read(conv, slot) for slot in (1, 2)] + [index.read(norm, slot) for slot in range(1, 5)]
    editor.drop_unread([value for value in values if value is not None])


def _stored(index: Index, place: Place, slot: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    value: Value | None = index.read(place, slot)
    if value is None:
        raise KeyError(place.node.input[slot])
    return array(index.stored[value]).astype(np.float64)
