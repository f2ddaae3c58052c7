"""Pruning by what it does to a layer's outputs: whatever goes is made up for by what stays.

All of it needs nothing but the layer's weight and the Gram matrix of its inputs: the squared error of the outputs of
one row of the weight is (w - w')G(w - w')ᵀ.
"""

import numpy as np

from workers.compression.pruning.masks import Floats, Mask, mask
from workers.compression.quantization.gptq import DAMPING, inverse_factor
from workers.compression.specs.pruning_pattern import Blocks, Groups, Pattern

_BATCH = 128
_STEPS = 60
_SMALL = 1e-4


def compensated(matrix: Floats, gram: Floats, sparsity: float, pattern: Pattern) -> Floats:
    """Takes weights away column by column, each one's error made up for in the columns after it (arXiv:2301.00774).

    Which ones go is chosen batch by batch of columns, N:M group by group, by w² over the squared diagonal of the
    Cholesky factor of the inverse Gram matrix, with what earlier columns have passed on. Unlike in the paper batches do
    not all lose the same share: the error that is left is smaller so. Taking the columns of most energy first, which
    GPTQ gains from, makes it larger.

    Args:
        matrix: Shape (outputs, inputs), finite.
        gram: Of the inputs, shape (inputs, inputs), finite; columns without energy go first.
    """
    factor = inverse_factor(gram)
    inverse_costs = np.where(np.diagonal(gram) > 0, np.diagonal(factor) ** -2.0, 0.0).astype(np.float32)
    work = np.array(matrix, np.float32, order="C")
    columns = len(gram)
    span = pattern.width if isinstance(pattern, Blocks) else pattern.of
    batch = max(_BATCH // span, 1) * span
    expected = mask(work**2 * inverse_costs, sparsity, pattern)
    for start in range(0, columns, batch):
        stop = min(start + batch, columns)
        stays = expected[:, start:stop]
        if isinstance(pattern, Blocks):
            # As many as at first sight, so that columns that hardly meet any input lose more than others; which ones,
            # the values that earlier columns have led to decide.
            share = 1.0 - float(stays[:: pattern.height, :: pattern.width].mean())
            stays = mask(work[:, start:stop] ** 2 * inverse_costs[start:stop], share, pattern)
        lost = np.zeros((len(work), stop - start), np.float32)
        for position in range(start, stop):
            own = position - start
            if isinstance(pattern, Groups) and own % pattern.of == 0:
                group = slice(position, min(position + pattern.of, stop))
                stays[:, own : own + pattern.of] = mask(work[:, group] ** 2 * inverse_costs[group], sparsity, pattern)
            lost[:, own] = np.where(stays[:, own], np.float32(0), work[:, position]) / factor[position, position]
            work[:, position:stop] -= lost[:, own, None] * factor[position, position:stop]
        work[:, stop:] -= lost @ factor[start:stop, stop:]
        work[:, start:stop] = np.where(stays, work[:, start:stop], np.float32(0))
    return work


def fitted(matrix: Floats, pruned: Floats, gram: Floats, stays: Mask) -> Floats:
    """The values that bring the layer's outputs nearest to the old ones, with what is gone held at zero.

    Least squares for all outputs at once by conjugate gradients (as in ALPS, arXiv:2406.07831, section 3.3), damped
    towards the old values so that few rows of calibration data are not learnt by heart.

    Args:
        matrix: The old values.
        pruned: What to start from.
        gram: Of the inputs.
        stays: What may be other than zero.
    """
    energy = np.diagonal(gram)
    damping = np.float32(DAMPING * float(energy.mean()))
    system = gram + damping * np.eye(len(gram), dtype=np.float32)
    conditioner = (1.0 / (energy + damping)).astype(np.float32)
    found = np.where(stays, pruned, np.float32(0))
    residual = np.where(stays, (matrix - found) @ system, np.float32(0))
    preconditioned = residual * conditioner
    direction, rate = preconditioned, _products(residual, preconditioned)
    enough = _SMALL**2 * rate
    for _ in range(_STEPS):
        ahead = np.where(stays, direction @ system, np.float32(0))
        length = _ratio(rate, _products(direction, ahead))
        found += length * direction
        residual -= length * ahead
        preconditioned = residual * conditioner
        before, rate = rate, _products(residual, preconditioned)
        if (rate <= enough).all():
            break
        direction = preconditioned + _ratio(rate, before) * direction
    return found


def _products(left: Floats, right: Floats) -> Floats:
    """Inner products row by row, shape (rows, 1)."""
    return np.asarray(np.einsum("ij,ij->i", left, right)[:, None], np.float32)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Zero where there is nothing left to divide."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
