"""Weights that are mostly zero, as steps to and codes of what is not; onnxruntime fills them up when it loads them.

``CumSum`` makes positions of the steps, ``ScatterElements`` puts what the codes stand for there. Both fold like the
chains of dense codes: at opset 11, from onnxruntime 1.19 on, at the levels basic and up.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from workers.compression.coding.gaps import Positions, entries, entry_count, steps_to
from workers.compression.families.onnx.chains import Chain
from workers.compression.families.onnx.unpacking import MAX_INTERMEDIATE_BYTES, PLANES, unpacked, unpacked_size
from workers.compression.quantization.codebook import CodebookWeight

_CHAIN_BYTES = 380
"""What nodes, shapes and names take in the file beyond those that dense codes need too, if steps are whole bytes."""
_UNPACKING_BYTES = 200
_PLANE_BYTES = 370
"""Of each further plane of steps."""
_MULTIPLE = 8
"""So many codes of any width fill whole bytes: none have to be cut off."""
_FLOAT_BYTES = 4


@dataclass(frozen=True, eq=False)
class Sparse:
    """Which of a flat run of values are stored.

    Args:
        size: Number of values.
        entries: Rising positions of those that are stored: all that are not zero, and some zeros.
        width: Bits of a step from one to the next.
    """

    size: int
    entries: Positions
    width: int


def sparsely(occupied: npt.NDArray[np.bool_], bits: int) -> Sparse | None:
    """How values are stored in the fewest bytes with zeros left out; None if dense takes no more.

    Args:
        occupied: Which values are not zero, flat.
        bits: Of a value, or of the code of one: 1 to 8, 16 or 32.
    """
    size = occupied.size
    if size * _FLOAT_BYTES > MAX_INTERMEDIATE_BYTES:
        return None
    positions = np.flatnonzero(occupied)
    taken = {width: _bytes(entry_count(positions, size, width), width, bits) for width in PLANES}
    width = min(taken, key=lambda tried: taken[tried])
    if taken[width] >= _value_bytes(size, bits):
        return None
    return Sparse(size, entries(positions, size, width, _MULTIPLE), width)


def zero_code(form: CodebookWeight) -> int | None:
    """The code of exactly zero, of a weight with a single codebook and no scales; None if there is none."""
    if form.scales is not None or form.codebooks.size != form.codebooks.shape[-1]:
        return None
    found = np.flatnonzero(form.codebooks.reshape(-1) == 0.0)
    return int(found[0]) if found.size else None


def scattered(chain: Chain, sparse: Sparse, values: str) -> str:
    """``values``, one for each entry, among zeros; flat."""
    nodes, steps = unpacked(
        chain.editor, chain.scope, f"{chain.name}_steps", steps_to(sparse.entries), sparse.width, TensorProto.INT32
    )
    chain.nodes += nodes
    positions = chain.add("CumSum", steps, chain.share("axis", np.array(0, np.int64)))
    size = chain.share("shape", np.array([sparse.size], np.int64))
    zeros = chain.add("Expand", chain.share("zero", np.array(0.0, np.float32)), size)
    return chain.add("ScatterElements", zeros, positions, values, axis=0)


def _bytes(count: int, width: int, bits: int) -> int:
    """Of so many entries, nodes counted."""
    nodes = _CHAIN_BYTES + (width < max(PLANES)) * _UNPACKING_BYTES + (len(PLANES[width]) - 1) * _PLANE_BYTES
    return unpacked_size(count, width) + _value_bytes(count, bits) + nodes


def _value_bytes(count: int, bits: int) -> int:
    return unpacked_size(count, bits) if bits in PLANES else count * bits // 8
