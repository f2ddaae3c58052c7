"""Changed copies of trees and ensembles; scikit-learn's compiled trees are rebuilt from their own arrays."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.tree._tree import Tree

from workers.compression.families.trees.estimators import BOOSTERS, HISTOGRAM_BOOSTERS, SINGLE_TREES

Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]
STALE = ("oob_score_", "oob_decision_function_", "oob_prediction_", "oob_improvement_", "oob_scores_")
"""Fitted attributes that speak of the unpruned ensemble."""


def rebuilt(tree: Any, nodes: Any, values: Values) -> Any:
    """A compiled tree of the same features and classes over other arrays; children stand behind their parents."""
    made = Tree(tree.n_features, np.asarray(tree.n_classes, dtype=np.intp), tree.n_outputs)
    depth = _depth(nodes["left_child"], nodes["right_child"])
    made.__setstate__({"max_depth": depth, "node_count": len(nodes), "nodes": nodes, "values": values})
    return made


def with_leaves(tree: Any, collapsed: Mask, values: Values) -> Any:
    """The tree in which each node of ``collapsed`` is a leaf; what lay below is gone from the arrays.

    Args:
        tree: A checked compiled tree.
        collapsed: One flag per node; leaves may be flagged or not.
        values: ``[nodes, 1, classes]``, the values that the remaining nodes get.
    """
    nodes = tree.__getstate__()["nodes"]
    left, right = nodes["left_child"], nodes["right_child"]
    kept = np.zeros(len(nodes), dtype=bool)
    kept[0] = True
    for node in np.flatnonzero((left != -1) & ~collapsed):
        kept[[left[node], right[node]]] = kept[node]
    position = np.cumsum(kept) - 1
    chosen = nodes[kept].copy()
    leaf = (collapsed | (left == -1))[kept]
    chosen["left_child"] = np.where(leaf, -1, position[chosen["left_child"]])
    chosen["right_child"] = np.where(leaf, -1, position[chosen["right_child"]])
    chosen["feature"][leaf] = -2
    chosen["threshold"][leaf] = -2.0
    chosen["missing_go_to_left"][leaf] = 0
    return rebuilt(tree, chosen, np.ascontiguousarray(values[kept]))


def with_trees(estimator: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of a single tree, forest or booster with ``change`` applied to each compiled tree."""
    changed = _without_stale(estimator)
    if isinstance(estimator, SINGLE_TREES):
        changed.tree_ = change(estimator.tree_)
        return changed
    members = estimator.estimators_
    flat = [with_trees(member, change) for member in (members.flat if isinstance(estimator, BOOSTERS) else members)]
    changed.estimators_ = _like(members, flat)
    return changed


def with_members(estimator: Any, chosen: Sequence[int], weights: Values) -> Any:
    """A copy of an ensemble with some members, the values of each multiplied by its weight.

    A forest divides by the number of members it has, a booster sums; ``weights`` already take this into account.
    """
    changed = _without_stale(estimator)
    if isinstance(estimator, HISTOGRAM_BOOSTERS):
        stages = estimator._predictors  # noqa: SLF001 - there is no public way to the trees
        changed._predictors = [  # noqa: SLF001 - the same
            [_scaled_predictor(predictor, weight) for predictor in stages[index]]
            for index, weight in zip(chosen, weights, strict=True)
        ]
        return changed
    members = estimator.estimators_
    if isinstance(estimator, BOOSTERS):
        scaled = [
            _scaled(member, weight) for index, weight in zip(chosen, weights, strict=True) for member in members[index]
        ]
        changed.estimators_ = _like(members[list(chosen)], scaled)
        changed.train_score_ = estimator.train_score_[list(chosen)]
        changed.n_estimators_ = len(chosen)
    else:
        changed.estimators_ = [_scaled(members[index], weight) for index, weight in zip(chosen, weights, strict=True)]
    changed.n_estimators = len(chosen)
    return changed


def has_stale(estimator: Any) -> bool:
    """Whether the estimator carries figures that stop being true once it is pruned."""
    return any(name in vars(estimator) for name in STALE)


def _without_stale(estimator: Any) -> Any:
    changed = copy.copy(estimator)
    for name in STALE:
        vars(changed).pop(name, None)
    return changed


def _scaled(member: Any, weight: float) -> Any:
    return with_trees(member, lambda tree: with_values(tree, tree.__getstate__()["values"] * weight))


def with_values(tree: Any, values: Values) -> Any:
    """The same splits with other values ``[nodes, 1, classes]``."""
    return rebuilt(tree, tree.__getstate__()["nodes"].copy(), np.ascontiguousarray(values))


def _scaled_predictor(predictor: Any, weight: float) -> Any:
    changed = copy.copy(predictor)
    changed.nodes = predictor.nodes.copy()
    changed.nodes["value"] *= weight
    return changed


def _like(members: Any, flat: list[Any]) -> Any:
    """``flat`` in the container that scikit-learn keeps members in: a list, or an array of stages by outputs."""
    if isinstance(members, list):
        return flat
    shaped = np.empty(members.shape, dtype=object)
    for index, member in enumerate(flat):
        shaped.flat[index] = member
    return shaped


def _depth(left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> int:
    depth = np.zeros(len(left), dtype=np.int64)
    for node in np.flatnonzero(left != -1):
        depth[[left[node], right[node]]] = depth[node] + 1
    return int(depth.max())
