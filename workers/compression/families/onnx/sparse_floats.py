"""Float weights that are mostly zero, stored as steps to and values of what is not; nothing is rounded."""

import numpy as np
from onnx import ModelProto, TensorProto

from workers.compression.families.onnx.chains import Chain
from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.float_weights import FloatWeight, float_weights
from workers.compression.families.onnx.sparse_forms import Sparse, scattered, sparsely
from workers.compression.families.onnx.walking import array

_FLOAT_BITS = 32


def leave_out_zeros(proto: ModelProto) -> int:
    """Stores each weight without its zeros where that is smaller; in place.

    Tables that rows are looked up in are filled up at load as a whole too: then they take what they took before.

    Args:
        proto: Of opset ``unpacking.UNPACKING_OPSET`` or newer.

    Returns:
        How many weights that are.
    """
    editor = Editor(proto)
    stored = 0
    for found in float_weights(editor.index):
        # By its bits, minus zero is something.
        occupied = array(found.tensor).reshape(-1).view(np.uint32) != 0
        sparse = sparsely(occupied, _FLOAT_BITS)
        if sparse is not None:
            _store(editor, found, sparse)
            stored += 1
    editor.apply()
    return stored


def without_zeros(proto: ModelProto) -> ModelProto:
    """A copy in which weights are stored without their zeros."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    leave_out_zeros(copy)
    return copy


def _store(editor: Editor, found: FloatWeight, sparse: Sparse) -> None:
    tensor: TensorProto = found.tensor
    chain = Chain(editor, found.value.scope, found.value.name)
    values = chain.floats("values", array(tensor).reshape(-1)[sparse.entries])
    chain.reshape(scattered(chain, sparse, values), tensor.dims)
    editor.replace_stored(found.value, chain.ending(found.value.name))
