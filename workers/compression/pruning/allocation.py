"""How much of each weight goes when not all lose the same share."""

from collections.abc import Mapping, Sequence

import numpy as np

from workers.compression.context import Context
from workers.compression.families.weights import CompressibleModel, Weight
from workers.compression.sensitivity.yardstick import Yardstick
from workers.compression.specs.errors import DatasetMismatch
from workers.compression.tolerance.allotting import Allotment
from workers.compression.tolerance.prunable import Prunable
from workers.compression.tolerance.search import measure_curves

CURVE_ROWS = 64

Shares = Mapping[str, float]
"""The share of each weight that goes, by its name."""


def uniform(weights: Sequence[Weight], total: float) -> Shares:
    """The same for all."""
    return {weight.name: total for weight in weights}


def erdos_renyi_kernel(weights: Sequence[Weight], total: float) -> Shares:
    """Densities in proportion to the sum of a weight's axes over their product (Evci et al., arXiv:1911.11134).

    Small weights stay denser. Where that would be more than all of a weight, it stays whole and the others lose more.
    """
    sizes = np.array([weight.size for weight in weights], np.float64)
    raw = np.array([sum(weight.shape) for weight in weights], np.float64) / sizes
    left, whole = (1.0 - total) * sizes.sum(), np.zeros(len(sizes), np.bool_)
    density = np.ones(len(sizes))
    while not whole.all():
        density[~whole] = raw[~whole] * (left - sizes[whole].sum()) / float(raw[~whole] @ sizes[~whole])
        over = density > 1.0
        if not over.any():
            break
        density[over], whole = 1.0, whole | over
    return {weight.name: float(1.0 - kept) for weight, kept in zip(weights, density, strict=True)}


def by_sensitivity(model: CompressibleModel, prunable: Prunable, total: float, context: Context) -> Shares:
    """The shares with the least sum of output errors, each weight pruned alone on the calibration rows.

    Raises:
        DatasetMismatch: There are no calibration rows.
    """
    dataset = context.any_data()
    if dataset is None:
        raise DatasetMismatch("Sensitivities are measured on calibration data; none was given.")
    model.threads(context.threads)
    try:
        with prunable.pruned({}) as run:
            yardstick = Yardstick(run, model.inputs, model.tokenizer_file(), dataset, CURVE_ROWS)
        return Allotment(measure_curves(prunable, yardstick, context)).shares(total)
    finally:
        model.threads(context.target.threads)
