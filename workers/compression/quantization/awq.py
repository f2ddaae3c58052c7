"""Ranges chosen by what they do to a layer's outputs: the idea of AWQ (arXiv:2306.00978) without its rescaled columns.

AWQ finds that the few columns which meet large activations decide the outputs, and protects them by scaling them up
before rounding, which needs the inverse scales folded into the operation before. That is not always there, and it would
change tensors besides the weight. Here each group's range is searched such that its own share of the outputs' error on
the recorded inputs, eᵀGe with the inputs' Gram matrix G, is least; large activations count for as much as they do in
that error, and the artifact is the same as by rounding to nearest.
"""

import numpy as np
import numpy.typing as npt

from workers.compression.quantization.block_rows import BlockRows, pieces
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.range_search import RangeSearch
from workers.compression.quantization.uniform import Grid, Parameters, Scheme
from workers.compression.quantization.weight_ranges import joined

Floats = npt.NDArray[np.float32]

_WIDEST = 512
"""Groups of more columns are weighed by each column's energy alone, for their products would take too long."""


def aware_parameters(matrix: Floats, grid: Grid, blocks: Blocks, scheme: Scheme, gram: Floats) -> Parameters:
    """Parameters for each block of ``matrix``.

    Args:
        gram: Of the inputs, shape (inputs, inputs).
    """
    width = blocks.lengths[1]
    damped = gram + np.eye(len(gram), dtype=np.float32) * np.float32(1e-3 * np.diagonal(gram).mean())
    found = []
    for start in range(0, blocks.shape[1], width):
        columns = slice(start, start + width)
        values, inputs = np.ascontiguousarray(matrix[:, columns]), damped[columns, columns]
        stripe = Blocks(values.shape, (blocks.lengths[0], values.shape[1]))
        found.append(_stripe(values, grid, stripe, scheme, np.ascontiguousarray(inputs)))
    return joined(found, axis=1)


def _stripe(values: Floats, grid: Grid, blocks: Blocks, scheme: Scheme, gram: Floats) -> Parameters:
    parts = []
    for rows, own in pieces(blocks):
        if own.shape[1] <= _WIDEST and own.shape[0] % own.lengths[0] == 0:
            block_rows = BlockRows(BlockRows.of(values[rows], own).values, gram=gram)
        else:
            block_rows = BlockRows.of(values[rows], own, np.ascontiguousarray(np.diagonal(gram)))
        low, high = (reduce(block_rows.values, axis=1, keepdims=True) for reduce in (np.min, np.max))
        parts.append(RangeSearch(block_rows, grid, scheme).search(low, high).parameters(grid, scheme))
    return joined(parts)
