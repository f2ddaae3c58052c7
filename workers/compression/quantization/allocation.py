"""Which number of bits each layer gets: a multiple-choice knapsack, solved exactly by integer programming.

Each layer has options, of which one is taken; each option has a cost (stored bits) and an error. Costs and errors of
the layers add up. That errors do is an assumption: whoever uses an allocation measures what it really does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from scipy.sparse import csr_matrix

from workers.compression.specs.errors import ConstraintInfeasible

# The solver stops once it is within an absolute 1e-6 of the optimum; objectives are scaled to lie far above that.
_OBJECTIVE_SCALE = 1e5
_RELATIVE_GAP = 1e-7
# A limit of nodes and not of seconds: the same instance has the same answer on every machine.
_NODE_LIMIT = 20_000
_CORRECTIONS = 8

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Option:
    """One way to store a layer.

    Args:
        bits: What the option is called by.
        cost: Stored bits, metadata included.
        error: What it adds to the outputs' error; not negative.
    """

    bits: int
    cost: float
    error: float


@dataclass(frozen=True)
class Allocation:
    """One option per layer.

    Args:
        chosen: In the layers' order.
        gap: How far the objective may lie above the optimum, relative to it; 0 where it is proven optimal.
    """

    chosen: tuple[Option, ...]
    gap: float

    @property
    def cost(self) -> float:
        """Sum over the layers."""
        return sum(option.cost for option in self.chosen)

    @property
    def error(self) -> float:
        """Sum over the layers: the predicted error."""
        return sum(option.error for option in self.chosen)


def least_error(layers: Sequence[Sequence[Option]], budget: float) -> Allocation:
    """The allocation with the least sum of errors whose costs are at most ``budget``.

    Raises:
        ConstraintInfeasible: The cheapest options cost more than that; the detail names what they cost.
    """
    cheapest = sum(min(option.cost for option in options) for options in layers)
    if cheapest > budget:
        raise ConstraintInfeasible(
            f"Even the fewest bits everywhere need {cheapest:,.0f} bits; the budget is {budget:,.0f}.",
            reason="size_budget",
        )
    return _solve(layers, [[(option.error, option.cost) for option in options] for options in layers], budget)


def least_cost(layers: Sequence[Sequence[Option]], max_error: float) -> Allocation:
    """The cheapest allocation whose errors add up to at most ``max_error``.

    Raises:
        ConstraintInfeasible: The most exact options err more than that; the detail names by how much.
    """
    least = sum(min(option.error for option in options) for options in layers)
    if least > max_error:
        raise ConstraintInfeasible(
            f"Even the most bits everywhere have a predicted error of {least:.3g}; at most {max_error:.3g} is wanted.",
            reason="error_budget",
        )
    return _solve(layers, [[(option.cost, option.error) for option in options] for options in layers], max_error)


def _solve(
    layers: Sequence[Sequence[Option]], figures: Sequence[Sequence[tuple[float, float]]], limit: float
) -> Allocation:
    """Minimizes the sum of first figures with the sum of second ones at most ``limit``, which can be kept."""
    if not layers:
        return Allocation((), 0.0)
    kept = [_undominated(options) for options in figures]
    objective = np.array([figures[layer][index][0] for layer, found in enumerate(kept) for index in found])
    weights = np.array([figures[layer][index][1] for layer, found in enumerate(kept) for index in found])
    owners = np.repeat(np.arange(len(kept)), [len(found) for found in kept])
    allowed = limit
    refused: list[npt.NDArray[np.intp]] = []
    for _ in range(_CORRECTIONS):
        solved = _program(objective, weights, owners, allowed, refused)
        picked = _picked(solved, objective, weights, owners, len(kept))
        excess = float(weights[picked].sum()) - limit
        if excess <= 0.0:
            break
        # The solver keeps limits to within a tolerance; so does nobody who counts bytes. An excess far below its
        # tolerance it would never notice: that choice itself is ruled out.
        allowed -= 2.0 * excess
        refused.append(picked)
    else:
        picked = _picked(None, objective, weights, owners, len(kept))
    indices = [found[position - start] for found, position, start in zip(kept, picked, _starts(kept), strict=True)]
    chosen = tuple(options[index] for options, index in zip(layers, indices, strict=True))
    return Allocation(chosen, _gap(solved, float(objective[picked].sum()), objective))


def _undominated(options: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the options that are not beaten or equalled in both figures by another."""
    best = np.inf
    kept = []
    for index in sorted(range(len(options)), key=lambda index: (options[index][1], options[index][0])):
        if options[index][0] < best:
            best = options[index][0]
            kept.append(index)
    return kept


def _program(
    objective: Floats,
    weights: Floats,
    owners: npt.NDArray[np.intp],
    limit: float,
    refused: Sequence[npt.NDArray[np.intp]],
) -> OptimizeResult:
    count = len(objective)
    one_each = csr_matrix((np.ones(count), (owners, np.arange(count))))
    scale = _scale(objective)
    # Relative to the limit, so that the solver's tolerance means the same for bits and for tiny errors.
    within = LinearConstraint(csr_matrix(weights / max(limit, np.finfo(np.float64).tiny)), -np.inf, 1.0)
    return milp(
        objective * scale,
        integrality=np.ones(count),
        bounds=Bounds(0.0, 1.0),
        constraints=[
            LinearConstraint(one_each, 1.0, 1.0),
            within,
            *(
                LinearConstraint(np.isin(np.arange(count), picked).astype(float), -np.inf, len(picked) - 1)
                for picked in refused
            ),
        ],
        options={"mip_rel_gap": _RELATIVE_GAP, "node_limit": _NODE_LIMIT},
    )


def _picked(
    solved: OptimizeResult | None, objective: Floats, weights: Floats, owners: npt.NDArray[np.intp], layers: int
) -> npt.NDArray[np.intp]:
    """The option taken for each layer; the ones that weigh least if the solver found nothing."""
    taken = solved.x if solved is not None and solved.x is not None else -weights
    ranked = np.lexsort((objective, -taken, owners))
    first = np.searchsorted(owners[ranked], np.arange(layers))
    return np.asarray(ranked[first], np.intp)


def _starts(kept: Sequence[Sequence[int]]) -> list[int]:
    return [0, *np.cumsum([len(found) for found in kept])[:-1].tolist()]


def _scale(objective: Floats) -> float:
    largest = float(np.max(objective, initial=0.0))
    return _OBJECTIVE_SCALE / largest if largest > 0.0 else 1.0


def _gap(solved: OptimizeResult, reached: float, objective: Floats) -> float:
    bound = getattr(solved, "mip_dual_bound", None)
    if bound is None or reached <= 0.0:
        return 0.0 if reached <= 0.0 else 1.0
    gap = max(0.0, 1.0 - float(bound) / _scale(objective) / reached)
    return gap if gap > 2.0 * _RELATIVE_GAP else 0.0
