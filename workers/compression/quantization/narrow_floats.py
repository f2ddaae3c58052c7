"""Floats of 8 and 16 bits: rounding to nearest, ties to even, and the scales that keep 8 bits in range.

Scaled, the largest magnitude of a channel (or tensor) becomes the largest finite number of the type, as
arXiv:2209.05433 has it. bfloat16 and float16 need no scales; what exceeds float16's range is the caller's to refuse.
"""

from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
FloatType = Literal["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]

DTYPES: dict[FloatType, np.dtype[Any]] = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
}

_LARGEST: dict[FloatType, np.float32] = {
    "float16": np.float32(65504.0),
    "bfloat16": np.float32(2.0**127 * (2.0 - 2.0**-7)),
    "float8_e4m3fn": np.float32(448.0),
    "float8_e5m2": np.float32(57344.0),
}
_SMALLEST_SCALE = np.float32(np.finfo(np.float32).tiny)


def rounded(values: Floats, dtype: FloatType) -> Floats:
    """The nearest numbers of a type, in float32; what lies beyond its largest becomes that."""
    largest = largest_of(dtype)
    return np.clip(values, -largest, largest).astype(DTYPES[dtype]).astype(np.float32)


def largest_of(dtype: FloatType) -> np.float32:
    """The largest finite number of a type."""
    return _LARGEST[dtype]


def scales_for(matrix: Floats, dtype: FloatType, granularity: Literal["tensor", "channel"]) -> Floats:
    """What the numbers of a type are to be multiplied by; all zeros divide by one.

    Args:
        matrix: Finite, shape (outputs, inputs).

    Returns:
        Shape (outputs, 1) or (1, 1).
    """
    axis = 1 if granularity == "channel" else None
    magnitudes = np.abs(matrix).max(axis=axis, keepdims=True).reshape(-1, 1)
    scale = (magnitudes / largest_of(dtype)).astype(np.float32)
    return np.where(scale < _SMALLEST_SCALE, np.float32(1.0), scale).astype(np.float32)
