"""Puts learned values back into stored tensors."""

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper

from workers.compression.specs.errors import NumericalFailure


def overwrite(tensor: TensorProto, values: torch.Tensor) -> None:
    """Replaces what ``tensor`` holds, in the type that it has; shape and elements are those of ``values``.

    Raises:
        NumericalFailure: A value is not finite, or not in the stored type.
    """
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    with np.errstate(over="ignore"):
        stored = values.detach().cpu().contiguous().numpy().astype(dtype)
    if not np.isfinite(stored.astype(np.float64)).all():
        raise NumericalFailure(
            f"Values of {tensor.name[:200]!r} are not finite or too large for {dtype.name}.",
            hint="Lower the learning rate.",
        )
    name, doc = tensor.name, tensor.doc_string
    tensor.CopyFrom(numpy_helper.from_array(stored, name))
    if doc:
        tensor.doc_string = doc
