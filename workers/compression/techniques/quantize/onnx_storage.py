"""Integer storage of ONNX weights that keep computing in float."""

import numpy as np
from onnx import ModelProto

from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.float_weights import FloatWeight
from workers.compression.families.onnx.forms import store_form, why_not
from workers.compression.families.onnx.walking import array
from workers.compression.families.weights import Weight
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.uniform import Grid, UniformWeight, encode
from workers.compression.quantization.weight_ranges import fitted

STORAGE_GRID = Grid.of("symmetric", 8)
"""Weights that are only stored as integers never saturate: they keep the full range."""

EMBEDDING = "embedding tables as integer rows"
STORED = "weights stored as integers and computed in float"


def store_as_integers(editor: Editor, weight: Weight, found: FloatWeight, granularity: str) -> str | None:
    """Stores ``weight`` in 8 bits, each row's step (or the one of all) in half precision where that holds it.

    Returns:
        Which of the two ways above it was; None where the format has no place for it.
    """
    matrix = np.asarray(weight.to_matrix(array(found.tensor)), np.float32)
    blocks = Blocks.of_matrix(weight.matrix_shape, "channel" if granularity == "channel" else "tensor")
    parameters = fitted(matrix, STORAGE_GRID, blocks, "symmetric", "mse")
    form = UniformWeight(encode(matrix, parameters, STORAGE_GRID, blocks), parameters, STORAGE_GRID, blocks)
    if why_not(weight, form) is not None:
        return None
    store_form(editor, found, weight, form)
    return EMBEDDING if weight.role == "embedding" else STORED


def drop_notes(proto: ModelProto) -> None:
    """Drops what exporters write on nodes for debugging, and shapes of values that the graph no longer has.

    Of a small network that is a tenth of the file; nothing of it is used when the model runs.
    """
    graph = proto.graph
    for node in graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    made = {name for node in graph.node for name in node.output}
    kept = [value for value in graph.value_info if value.name in made]
    for value in kept:
        value.ClearField("metadata_props")
    del graph.value_info[:]
    graph.value_info.extend(kept)
