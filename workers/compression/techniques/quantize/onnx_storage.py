"""Integer storage of ONNX weights that keep computing in float."""

import numpy as np
import numpy.typing as npt

from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.float_weights import FloatWeight
from workers.compression.families.onnx.stored_integers import store_rows, store_scaled
from workers.compression.families.onnx.walking import Place, integer_attribute
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.uniform import Grid, channel_axes, quantize

STORAGE_GRID = Grid(signed=True)
"""Weights that are only stored as integers never saturate: they keep the full range."""

EMBEDDING = "embedding tables as integer rows"
STORED = "weights stored as integers and computed in float"

_OUTPUT_CHANNEL = {"ConvTranspose": 1}
_SHORTEST_GROUP = 16


def store_as_integers(editor: Editor, weight: FloatWeight, values: npt.NDArray[np.float32], granularity: str) -> str:
    """Stores ``weight`` in 8 bits; returns which of the two ways above it was."""
    if values.ndim == 2 and all(_is_lookup(reader.place, reader.slot) for reader in weight.readers):
        axes = (1,) if granularity == "channel" else None
        rows = quantize(values, STORAGE_GRID, Blocks.spanning(values.shape, axes))
        scale = np.broadcast_to(rows.parameters.scale, (values.shape[0], 1))
        store_rows(editor, weight.value, [reader.place for reader in weight.readers], rows.integers, scale)
        return EMBEDDING
    blocks = Blocks.spanning(values.shape, _axes(weight, values.shape, granularity))
    stored = quantize(values, STORAGE_GRID, blocks)
    store_scaled(editor, weight.value, stored.integers, stored.parameters.scale)
    return STORED


def _is_lookup(place: Place, slot: int) -> bool:
    return place.node.op_type == "Gather" and slot == 0 and integer_attribute(place.node, "axis", 0) == 0


def _axes(weight: FloatWeight, shape: tuple[int, ...], granularity: str) -> tuple[int, ...] | None:
    if granularity == "tensor":
        return None
    operator = weight.owner.node.op_type
    if "Conv" in operator or shape[-1] < _SHORTEST_GROUP:
        return channel_axes(len(shape), _OUTPUT_CHANNEL.get(operator, 0))
    return (len(shape) - 1,)
