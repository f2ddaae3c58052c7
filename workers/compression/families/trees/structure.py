"""Whether a loaded tree ensemble can be walked: scikit-learn's compiled code follows indices without looking.

A child index out of range is a segmentation fault at the first prediction, a cycle one that never ends. So every
array that prediction reads is checked here, in NumPy, before anything predicts.
"""

from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE
from sklearn.tree._tree import Tree

from workers.compression.families.trees.estimators import (
    BOOSTERS,
    HISTOGRAM_BOOSTERS,
    SINGLE_TREES,
    is_classifier,
    tree_owners,
)
from workers.compression.specs.errors import InvalidModel, UnsupportedFormat

MAX_FEATURES = 1_000_000
MAX_CLASSES = 10_000
Indices = npt.NDArray[np.int64]


def check_estimator(estimator: Any) -> None:
    """Raises ``InvalidModel`` (``sklearn_structure``) or ``UnsupportedFormat`` unless prediction is safe."""
    features = _natural(estimator, "n_features_in_", MAX_FEATURES)
    if getattr(estimator, "n_outputs_", 1) != 1:
        raise UnsupportedFormat("Trees with several outputs are not served.", reason="sklearn_estimator")
    if isinstance(estimator, HISTOGRAM_BOOSTERS):
        _check_histogram_booster(estimator, features)
        return
    classes = _check_classes(estimator) if is_classifier(estimator) else 1
    if isinstance(estimator, BOOSTERS):
        _check_stages(estimator, classes)
        classes = 1
    owners = [owner for _, owner in tree_owners(estimator)]
    if not owners or not all(isinstance(owner, SINGLE_TREES) for owner in owners):
        _refuse("it has members that are no trees")
    for owner in owners:
        if owner.n_features_in_ != features or getattr(owner, "n_outputs_", 1) != 1:
            _refuse("its trees differ in their features")
        _check_tree(owner.tree_, features, classes)


def _refuse(why: str) -> NoReturn:
    raise InvalidModel(f"The tree ensemble contradicts itself: {why}.", reason="sklearn_structure")


def _natural(owner: Any, name: str, highest: int) -> int:
    value = getattr(owner, name, None)
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= highest:
        _refuse(f"{name} is no number from 1 to {highest}")
    return int(value)


def _check_classes(estimator: Any) -> int:
    classes = np.asarray(estimator.classes_)
    if classes.ndim != 1 or not 1 <= len(classes) <= MAX_CLASSES or len(classes) != estimator.n_classes_:
        _refuse("classes_ and n_classes_ do not agree")
    return len(classes)


def _check_stages(estimator: Any, classes: int) -> None:
    """A stage has one tree per column of the scores; ``predict_stages`` writes there without a bounds check."""
    width = classes if classes > 2 else 1
    stages = estimator.estimators_
    if not isinstance(stages, np.ndarray) or stages.ndim != 2 or stages.shape[1] != width or not len(stages):
        _refuse("its stages do not have one tree per score")
    if not np.isfinite(float(estimator.learning_rate)):
        _refuse("its learning rate is not finite")


def check_initial_scores(estimator: Any) -> None:
    """A booster's first scores must have the shape that its stages add to; needs checked trees."""
    if isinstance(estimator, BOOSTERS):
        row = np.zeros((1, estimator.n_features_in_), np.float32)
        scores = estimator._raw_predict_init(row)  # noqa: SLF001 - the buffer that the compiled code writes into
        if scores.shape != (1, estimator.estimators_.shape[1]) or scores.dtype != np.float64:
            _refuse("its first scores do not fit its stages")


def _check_tree(tree: Any, features: int, classes: int) -> None:
    if not isinstance(tree, Tree) or tree.n_features != features or tree.n_outputs != 1:
        _refuse("a tree has other features than the ensemble")
    if tree.max_n_classes != classes or tree.node_count < 1:
        _refuse("a tree has other classes than the ensemble")
    state = tree.__getstate__()
    nodes, values = state["nodes"], state["values"]
    if len(nodes) != tree.node_count or values.shape != (tree.node_count, 1, classes):
        _refuse("a tree has fewer nodes than it states")
    left, right = nodes["left_child"], nodes["right_child"]
    leaf = left == -1
    if not np.array_equal(leaf, right == -1):
        _refuse("a node has one child")
    check_children(left, right, leaf)
    inner = nodes[~leaf]
    _check_features(inner["feature"], features)
    if np.isnan(inner["threshold"]).any() or not np.isfinite(values).all():
        _refuse("a threshold or a value is not a number")


def check_children(left: Indices, right: Indices, leaf: npt.NDArray[np.bool_]) -> None:
    """Every node but the first is the child of exactly one node before it: in range, and without a cycle."""
    count = len(leaf)
    parents = np.flatnonzero(~leaf)
    children = np.concatenate((left[parents], right[parents])).astype(np.int64)
    if (children <= np.concatenate((parents, parents))).any() or (children >= count).any():
        _refuse("a child index is out of range or leads back")
    if len(children) != count - 1 or len(np.unique(children)) != count - 1:
        _refuse("a node has no parent or more than one")


def _check_features(found: Indices, features: int) -> None:
    if (found < 0).any() or (found >= features).any():
        _refuse("a split reads a feature that there is not")


def _check_histogram_booster(estimator: Any, features: int) -> None:
    categorical = getattr(estimator, "is_categorical_", None)
    if getattr(estimator, "_preprocessor", None) is not None or (categorical is not None and np.any(categorical)):
        raise UnsupportedFormat(
            "Histogram boosters with categorical features are not served.", reason="sklearn_estimator"
        )
    mapper = estimator._bin_mapper  # noqa: SLF001 - prediction builds its bitsets from it
    if np.any(mapper.is_categorical_) or len(mapper.is_categorical_) != features:
        _refuse("its bin mapper has other features")
    width = _natural(estimator, "n_trees_per_iteration_", MAX_CLASSES)
    if is_classifier(estimator):
        classes = len(np.asarray(estimator.classes_))
        if width != (classes if classes > 2 else 1):
            _refuse("its stages do not have one tree per score")
    stages = estimator._predictors  # noqa: SLF001 - there is no public way to the trees
    if not isinstance(stages, list) or not all(isinstance(stage, list) and len(stage) == width for stage in stages):
        _refuse("its stages do not have one tree per score")
    for _, predictor in tree_owners(estimator):
        _check_predictor(predictor.nodes, features)


def _check_predictor(nodes: Any, features: int) -> None:
    if not isinstance(nodes, np.ndarray) or nodes.dtype != PREDICTOR_RECORD_DTYPE or nodes.ndim != 1 or not len(nodes):
        _refuse("a tree is no array of nodes")
    leaf = nodes["is_leaf"] != 0
    if nodes["is_categorical"].any():
        _refuse("a split is categorical though no feature is")
    check_children(nodes["left"].astype(np.int64), nodes["right"].astype(np.int64), leaf)
    _check_features(nodes["feature_idx"][~leaf], features)
    if np.isnan(nodes["num_threshold"][~leaf]).any() or not np.isfinite(nodes["value"]).all():
        _refuse("a threshold or a value is not a number")
