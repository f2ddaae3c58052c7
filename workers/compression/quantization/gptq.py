"""Second-order quantization: each column's error is made up for in the columns after it (GPTQ, arXiv:2210.17323).

Columns are rounded one by one; what that does to the layer's outputs on its recorded inputs is cancelled as well as the
columns still to come can. How much each has to move is a row of the Cholesky factor of the inverse of the inputs' Gram
matrix. Columns that meet the most input energy come first; the parameters of groups are fixed beforehand, so groups
stay contiguous.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import scipy.linalg

from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.range_search import steps_of
from workers.compression.quantization.uniform import Grid, Parameters, UniformWeight

Floats = npt.NDArray[np.float32]

DAMPING = 0.01
"""Share of the mean input energy added to every column's."""

_BATCH = 128


def compensated(matrix: Floats, parameters: Parameters, grid: Grid, blocks: Blocks, gram: Floats) -> UniformWeight:
    """Rounds ``matrix`` column by column.

    Args:
        parameters: Of every block.
        gram: Of the inputs, shape (inputs, inputs), finite; columns without energy are rounded to nearest.
    """
    order = np.argsort(-np.diagonal(gram), kind="stable")
    factor = inverse_factor(gram[np.ix_(order, order)])
    work = np.array(matrix[:, order], np.float32)
    steps = np.empty(matrix.shape, np.float32)
    round_column = _rounder(parameters, grid, blocks)
    columns = len(order)
    for start in range(0, columns, _BATCH):
        stop = min(start + _BATCH, columns)
        lost = np.empty((len(work), stop - start), np.float32)
        for position in range(start, stop):
            steps[:, order[position]], restored = round_column(work[:, position], int(order[position]))
            lost[:, position - start] = (work[:, position] - restored) / factor[position, position]
            ahead = slice(position + 1, stop)
            work[:, ahead] -= lost[:, position - start, None] * factor[position, ahead]
        work[:, stop:] -= lost @ factor[start:stop, stop:]
    if parameters.zero is not None:
        steps += blocks.spread(parameters.zero.astype(np.float32))
    return UniformWeight(steps.astype(grid.dtype), parameters, grid, blocks)


def inverse_factor(gram: Floats) -> Floats:
    """The upper triangle U with UᵀU the inverse of the damped Gram matrix.

    Where rounding errors have left the matrix indefinite it is damped more; the more, the closer the outcome comes to
    rounding to nearest.
    """
    energy = np.diagonal(gram).astype(np.float64)
    dead = energy <= 0
    mean = float(energy[~dead].mean()) if not dead.all() else 1.0
    damping = DAMPING
    while True:
        damped = gram.astype(np.float64)
        np.fill_diagonal(damped, np.where(dead, mean, energy) + damping * mean)
        try:
            # The Cholesky factor of the matrix turned by 180 degrees is, turned back, an upper triangle R with
            # RRᵀ the matrix; its inverse is the factor sought.
            turned = scipy.linalg.cholesky(damped[::-1, ::-1], lower=True, check_finite=False)
            break
        except np.linalg.LinAlgError:
            damping *= 10
    inverse = scipy.linalg.solve_triangular(turned[::-1, ::-1], np.eye(len(gram)), lower=False, check_finite=False)
    return np.asarray(inverse, np.float32)


def _rounder(parameters: Parameters, grid: Grid, blocks: Blocks) -> Callable[[Floats, int], tuple[Floats, Floats]]:
    """Gives the steps of one column's values and what they stand for."""
    height, width = blocks.lengths
    none = np.zeros(blocks.counts, np.float32)
    zero = none if parameters.zero is None else parameters.zero.astype(np.float32)
    offset = none if parameters.offset is None else parameters.offset

    def round_column(values: Floats, column: int) -> tuple[Floats, Floats]:
        scale_here, zero_here, offset_here = (
            np.repeat(found[:, column // width], height)[: len(values)] for found in (parameters.scale, zero, offset)
        )
        steps = steps_of(values, scale_here, zero_here, offset_here, grid)
        return steps, steps * scale_here + offset_here

    return round_column
