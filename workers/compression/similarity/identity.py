"""Which tensors are the same, found by a hash of their content: one pass, however many there are."""

import hashlib
from collections.abc import Iterable

import numpy as np

from workers.compression.families.model import Array

SMALLEST_BYTES = 64
"""A reference costs about as much as what it would save."""


def same_as(tensors: Iterable[tuple[str, Array]]) -> dict[str, str]:
    """Names of tensors that repeat an earlier one to the last bit, each mapped to the first with that content.

    Args:
        tensors: Names and values, taken one at a time.
    """
    first: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    repeated: dict[str, str] = {}
    for name, values in tensors:
        if values.nbytes < SMALLEST_BYTES:
            continue
        original = first.setdefault((values.dtype.name, values.shape, digest(values)), name)
        if original != name:
            repeated[name] = original
    return repeated


def digest(values: Array) -> bytes:
    """A hash of the bytes in C order; type and shape are not part of it."""
    return hashlib.sha256(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data).digest()
