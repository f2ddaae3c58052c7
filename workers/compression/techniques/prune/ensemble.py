"""Ensemble pruning: fewer trees, re-weighted and refitted, that predict like all of them on the user's rows."""

from typing import Any

import numpy as np
import numpy.typing as npt

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.trees.estimators import FORESTS, is_classifier
from workers.compression.families.trees.members import contributions, member_count, share_of_member
from workers.compression.families.trees.model import TreeModel, as_trees
from workers.compression.families.trees.rebuilding import has_stale, with_members, with_values
from workers.compression.registry import implements
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.steps.prune_trees import EnsemblePrune
from workers.compression.techniques.prune.leaf_refit import leaf_corrections
from workers.compression.techniques.prune.selection import select_members

MAX_MEMBERS = 3000
SELECTION_ROWS = 4000
REFIT_ROWS = 2000
FOLDS = 4
_BATCH_ROWS = 256
Floats = npt.NDArray[np.float64]


@implements(EnsemblePrune)
def prune_ensemble(model: Model, spec: EnsemblePrune, context: Context) -> Model:
    """Keeps ``spec.keep`` of the trees (stages, in a booster); labels are not used.

    Raises:
        UnsupportedTechnique: A single tree, no data, or more than 3,000 members.
    """
    trees = as_trees(model)
    estimator = trees.estimator
    count = member_count(estimator)
    keep = max(1, round(spec.keep * count))
    if count > MAX_MEMBERS:
        raise UnsupportedTechnique(f"The ensemble has {count} members; at most {MAX_MEMBERS} can be weighed.")
    rows = _rows(trees, context)
    grams, whole = _grams(estimator, rows, context)
    shares = np.full(count, share_of_member(estimator))
    chosen, weights = select_members(grams, shares, min(keep, count))
    if isinstance(estimator, FORESTS):
        weights = weights / weights.sum() if is_classifier(estimator) else weights
        pruned = with_members(estimator, chosen.tolist(), weights * len(chosen))
        pruned = _refitted(pruned, rows[:REFIT_ROWS], whole[:REFIT_ROWS])
    else:
        pruned = with_members(estimator, chosen.tolist(), weights)
    if has_stale(estimator):
        context.warn("Out-of-bag figures of the unpruned ensemble were removed.")
    context.changed(f"{len(chosen)} of {count} members stay, re-weighted on {len(rows)} rows")
    return trees.changed(pruned)


def _rows(model: TreeModel, context: Context) -> npt.NDArray[np.generic]:
    data = context.any_data()
    if data is None:
        raise UnsupportedTechnique("Ensemble pruning needs rows to compare predictions on.", reason="data_missing")
    batches = data.limited(SELECTION_ROWS).batches(model.inputs, _BATCH_ROWS, None)
    return np.concatenate([batch.feeds["input"] for batch in batches])


def _grams(estimator: Any, rows: npt.NDArray[np.generic], context: Context) -> tuple[list[Floats], Floats]:
    """Inner products of the members, one matrix per fold of the rows, and what the whole ensemble says to each row."""
    count = member_count(estimator)
    folds = min(FOLDS, len(rows))
    grams = [np.zeros((count, count)) for _ in range(folds)]
    said: list[Floats] = []
    for start in range(0, len(rows), _BATCH_ROWS):
        made = contributions(estimator, rows[start : start + _BATCH_ROWS])
        for fold in range(folds):
            flat = made[:, fold::folds].reshape(count, -1)
            grams[fold] += flat @ flat.T
        said.append(made.sum(axis=0) * share_of_member(estimator))
        context.progress(0.5 * start / len(rows), "compared trees")
    return grams, np.concatenate(said)


def _refitted(forest: Any, rows: npt.NDArray[np.generic], whole: Floats) -> Any:
    """The forest with leaf values corrected towards ``whole``; probabilities stay non-negative and sum to one."""
    count = len(forest.estimators_)
    leaves = np.stack([member.tree_.apply(rows) for member in forest.estimators_], axis=1)
    residual = whole - contributions(forest, rows).mean(axis=0)
    asked = leaf_corrections(leaves, residual)
    if asked is None:
        return forest
    for member, reached in zip(forest.estimators_, leaves.T, strict=True):
        values = member.tree_.__getstate__()["values"].copy()
        total = values.sum(axis=2, keepdims=True)
        np.add.at(values[:, 0], reached, count * asked)
        if is_classifier(forest):
            values = np.maximum(values, 0.0)
            values *= total / np.maximum(values.sum(axis=2, keepdims=True), 1e-300)
        member.tree_ = with_values(member.tree_, values)
    return forest
