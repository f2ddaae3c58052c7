"""Which scikit-learn estimators are served, and how their trees are reached."""

from collections.abc import Iterator
from typing import Any

from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

SINGLE_TREES = (DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor)
FORESTS = (RandomForestClassifier, RandomForestRegressor, ExtraTreesClassifier, ExtraTreesRegressor)
BOOSTERS = (GradientBoostingClassifier, GradientBoostingRegressor)
HISTOGRAM_BOOSTERS = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
CLASSIFIERS = (
    DecisionTreeClassifier,
    ExtraTreeClassifier,
    RandomForestClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
)
SERVED = (*SINGLE_TREES, *FORESTS, *BOOSTERS, *HISTOGRAM_BOOSTERS)


def is_classifier(estimator: Any) -> bool:
    """Whether the estimator tells classes apart."""
    return isinstance(estimator, CLASSIFIERS)


def tree_owners(estimator: Any) -> Iterator[tuple[str, Any]]:
    """Name and owner of each tree: an estimator with ``tree_``, or a histogram booster's predictor with ``nodes``."""
    if isinstance(estimator, SINGLE_TREES):
        yield "tree", estimator
    elif isinstance(estimator, FORESTS):
        for index, member in enumerate(estimator.estimators_):
            yield f"tree.{index}", member
    else:
        stages = estimator.estimators_ if isinstance(estimator, BOOSTERS) else estimator._predictors  # noqa: SLF001 - the library offers no other way to a histogram booster's trees
        for index, stage in enumerate(stages):
            for output, member in enumerate(stage):
                yield f"stage.{index}.{output}", member
