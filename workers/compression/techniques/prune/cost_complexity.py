"""Minimal cost-complexity pruning of trained trees, from nothing but what they store.

L. Breiman, J. Friedman, R. Olshen, C. Stone: Classification and Regression Trees, 1984, chapter 3. scikit-learn does
the same while it fits (``ccp_alpha``); here no data and no refit are needed, because a fitted tree still holds the
impurity and the weight of each of its nodes.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.trees.estimators import BOOSTERS, HISTOGRAM_BOOSTERS, tree_owners
from workers.compression.families.trees.model import as_trees
from workers.compression.families.trees.rebuilding import has_stale, with_leaves, with_trees
from workers.compression.registry import implements
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.steps.prune_trees import CostComplexityPrune

Floats = npt.NDArray[np.float64]


@implements(CostComplexityPrune)
def prune_by_cost_complexity(model: Model, spec: CostComplexityPrune, context: Context) -> Model:
    """Prunes each tree of the model at ``spec.alpha``.

    A collapsed node of a forest predicts what it stores. In a booster it predicts the mean of its leaves weighted by
    their samples: only leaves hold the step of the boosted loss, and this mean changes the scores least in the square.

    Raises:
        UnsupportedTechnique: The trees hold no impurities (histogram boosters).
    """
    estimator = as_trees(model).estimator
    if isinstance(estimator, HISTOGRAM_BOOSTERS):
        raise UnsupportedTechnique(
            "Histogram boosters store no impurities, which cost-complexity pruning weighs.",
            reason="no_impurities",
            hint='Use {"technique": "prune", "method": "ensemble"}.',
        )
    boosted = isinstance(estimator, BOOSTERS)
    if has_stale(estimator):
        context.warn("Out-of-bag figures of the unpruned ensemble were removed.")
    pruned = with_trees(estimator, lambda tree: pruned_tree(tree, spec.alpha, boosted=boosted))
    context.changed(
        f"{_nodes(estimator) - _nodes(pruned)} of {_nodes(estimator)} nodes collapsed into leaves above them"
    )
    return as_trees(model).changed(pruned)


def _nodes(estimator: Any) -> int:
    return sum(owner.tree_.node_count for _, owner in tree_owners(estimator))


def pruned_tree(tree: Any, alpha: float, *, boosted: bool = False) -> Any:
    """The smallest subtree of a compiled tree that minimises impurity plus ``alpha`` per leaf."""
    state = tree.__getstate__()
    nodes, values = state["nodes"], state["values"]
    share = nodes["weighted_n_node_samples"] / nodes["weighted_n_node_samples"][0]
    left, right = nodes["left_child"], nodes["right_child"]
    collapsed = collapsible(left, right, share * nodes["impurity"], alpha)
    if boosted:
        values = leaf_means(left, right, nodes["weighted_n_node_samples"], values)
    return with_leaves(tree, collapsed, values)


def collapsible(
    left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], risk: Floats, alpha: float
) -> npt.NDArray[np.bool_]:
    """Flags the nodes below which nothing pays for its leaves.

    One sweep from the leaves up: the best subtree below a node costs either ``risk + alpha`` as a leaf, or what the
    best subtrees below its children cost together; on a tie it becomes a leaf. This gives the tree that cutting
    weakest links one after the other up to ``alpha`` ends with (Breiman et al., theorem 3.10), in linear time.

    Args:
        left: Left child of each node, -1 for a leaf; children stand behind their parents.
        right: The same for right children.
        risk: Impurity of each node times its share of the samples.
        alpha: Cost of a leaf, in units of impurity.
    """
    cost = risk + alpha
    collapsed = np.zeros(len(risk), dtype=bool)
    for node in np.flatnonzero(left != -1)[::-1]:
        below = cost[left[node]] + cost[right[node]]
        collapsed[node] = cost[node] <= below
        cost[node] = min(cost[node], below)
    return collapsed


def leaf_means(left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], weight: Floats, values: Floats) -> Floats:
    """Values in which each inner node holds the mean of its leaves, weighted by their samples."""
    means = values.copy()
    for node in np.flatnonzero(left != -1)[::-1]:
        children = [left[node], right[node]]
        means[node] = np.average(means[children], axis=0, weights=weight[children])
    return means
