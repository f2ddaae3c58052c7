"""Which members of an ensemble to keep, and with which weights, so that they still say what the whole says.

The prediction is linear in its members, so everything is decided on Gram matrices of their contributions. Starting
from all members, the one whose loss costs least after re-weighting the others goes, one at a time: backward
elimination with the update of the optimal brain surgeon (Hassibi and Stork, 1993), weights drawn towards equal ones.
Few rows tell the trees of a forest apart badly, and fitted weights then do worse on new rows than equal weights on
trees picked greedily. So cross-validation settles how strongly weights are drawn together, and whether to fit any.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import nnls

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Selector = Callable[[Floats, Floats, int], tuple[Indices, Floats]]

_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def select_members(grams: Sequence[Floats], share: Floats, keep: int) -> tuple[Indices, Floats]:
    """Chooses ``keep`` members and their weights.

    Args:
        grams: One ``[m, m]`` matrix per fold of the rows: inner products of the members' contributions.
        share: ``[m]``, the weight of each member in the whole.
        keep: How many may stay.

    Returns:
        Ascending indices and non-negative weights; members whose best weight is zero are left out too.
    """
    whole = np.sum(grams, axis=0)
    ways: list[Selector] = [_pick_greedily, *(partial(_fit, strength=strength) for strength in _STRENGTHS)]
    errors = [_held_out_error(grams, whole, share, keep, way) for way in ways]
    return ways[int(np.argmin(errors))](whole, share, keep)


def _held_out_error(grams: Sequence[Floats], whole: Floats, share: Floats, keep: int, way: Selector) -> float:
    """Squared difference to the whole on each fold, by a selection that did not see the fold."""
    total = 0.0
    for gram in grams if len(grams) > 1 else ():
        chosen, weights = way(whole - gram, share, keep)
        missing = share.copy()
        missing[chosen] -= weights
        total += float(missing @ gram @ missing)
    return total


def _pick_greedily(gram: Floats, share: Floats, keep: int) -> tuple[Indices, Floats]:
    """Equal weights on members added one by one, each the one whose mean with those before is nearest the whole."""
    diagonal = np.diagonal(gram)
    aim = gram @ share / share.sum()
    summed = np.zeros(len(share))
    chosen: list[int] = []
    for size in range(1, keep + 1):
        cost = (2.0 * summed + diagonal) / size - 2.0 * aim
        cost[chosen] = np.inf
        best = int(np.argmin(cost))
        chosen.append(best)
        summed += gram[:, best]
    return np.array(sorted(chosen)), np.full(keep, share.sum() / keep)


def _fit(gram: Floats, share: Floats, keep: int, strength: float) -> tuple[Indices, Floats]:
    pull = strength * np.trace(gram) / len(gram)
    system = gram + max(pull, 1e-12) * np.eye(len(gram))
    wanted = gram @ share + pull * share * (len(share) / keep)
    chosen = _eliminate(system, wanted, keep)
    weights = _non_negative(system[np.ix_(chosen, chosen)], wanted[chosen])
    used = weights > 0.0
    return chosen[used], weights[used]


def _eliminate(system: Floats, wanted: Floats, keep: int) -> Indices:
    inverse = np.linalg.inv(system)
    weights = inverse @ wanted
    active = np.ones(len(weights), dtype=bool)
    for _ in range(len(weights) - keep):
        diagonal = np.where(active, np.diagonal(inverse), 1.0)
        cost = np.where(active, weights**2 / diagonal, np.inf)
        worst = int(np.argmin(cost))
        column = inverse[:, worst] / inverse[worst, worst]
        weights -= column * weights[worst]
        inverse -= np.outer(column, inverse[worst])
        active[worst] = False
    return np.flatnonzero(active)


def _non_negative(system: Floats, wanted: Floats) -> Floats:
    """The non-negative least-squares weights: a negative one would bet on errors cancelling out on new data."""
    factor = cholesky(system, lower=True)
    return np.asarray(nnls(factor.T, solve_triangular(factor, wanted, lower=True))[0])
