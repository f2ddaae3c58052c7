"""What each member of an ensemble contributes to a prediction: a forest's trees, a booster's stages."""

from typing import Any

import numpy as np
import numpy.typing as npt

from workers.compression.families.trees.estimators import BOOSTERS, FORESTS, HISTOGRAM_BOOSTERS
from workers.compression.specs.errors import UnsupportedTechnique

Values = npt.NDArray[np.float64]


def member_count(estimator: Any) -> int:
    """Number of trees of a forest or stages of a booster.

    Raises:
        UnsupportedTechnique: A single tree has no members.
    """
    if isinstance(estimator, (*FORESTS, *BOOSTERS)):
        return len(estimator.estimators_)
    if isinstance(estimator, HISTOGRAM_BOOSTERS):
        return len(estimator._predictors)  # noqa: SLF001 - there is no public way to the trees
    raise UnsupportedTechnique("A single tree is no ensemble of which trees could be left out.", reason="single_tree")


def contributions(estimator: Any, features: npt.NDArray[np.generic]) -> Values:
    """``[members, rows, outputs]``: the mean of a forest's, or the sum of a booster's, is what it predicts from."""
    if isinstance(estimator, FORESTS):
        inputs = np.ascontiguousarray(features, dtype=np.float32)
        return np.stack([member.tree_.predict(inputs) for member in estimator.estimators_])
    if isinstance(estimator, BOOSTERS):
        inputs = np.ascontiguousarray(features, dtype=np.float32)
        stages = [[member.tree_.predict(inputs)[:, 0] for member in stage] for stage in estimator.estimators_]
        return np.asarray(estimator.learning_rate * np.array(stages)).transpose(0, 2, 1)
    inputs = np.ascontiguousarray(features, dtype=np.float64)
    known, positions = estimator._bin_mapper.make_known_categories_bitsets()  # noqa: SLF001 - what ``predict`` itself passes on
    stages = [
        [predictor.predict(inputs, known, positions, 1) for predictor in stage]
        for stage in estimator._predictors  # noqa: SLF001 - there is no public way to the trees
    ]
    return np.array(stages).transpose(0, 2, 1)


def share_of_member(estimator: Any) -> float:
    """The weight that each member has in the whole: forests average, boosters sum."""
    return 1.0 / member_count(estimator) if isinstance(estimator, FORESTS) else 1.0
