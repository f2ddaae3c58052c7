from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from workers.compression.context import Context
from workers.compression.data import open_dataset
from workers.compression.families.trees.estimators import tree_owners
from workers.compression.families.trees.members import contributions
from workers.compression.families.trees.model import TreeModel, as_trees
from workers.compression.families.trees.rebuilding import with_members
from workers.compression.families.trees.skops_file import open_model
from workers.compression.registry import handler_for
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import DatasetFile
from workers.compression.specs.step import Step
from workers.compression.specs.steps.prune_trees import CostComplexityPrune, EnsemblePrune
from workers.compression.techniques.prune.selection import select_members

DIGITS = train_test_split(*load_digits(return_X_y=True), test_size=0.4, random_state=0)
CANCER = train_test_split(*load_breast_cancer(return_X_y=True), test_size=0.4, random_state=0)
DIABETES = train_test_split(*load_diabetes(return_X_y=True), test_size=0.4, random_state=0)


def apply(step: Step, estimator: Any, context: Context) -> TreeModel:
    return as_trees(handler_for(type(step), ModelFormat.SKOPS)(TreeModel(estimator, 0), step, context))


def nodes(estimator: Any) -> int:
    return sum(owner.tree_.node_count for _, owner in tree_owners(estimator))


def scores(estimator: Any, rows: np.ndarray) -> np.ndarray:
    return np.asarray(estimator.predict_proba(rows) if hasattr(estimator, "predict_proba") else estimator.predict(rows))


def with_rows(folder: Path, rows: np.ndarray) -> Context:
    np.savez(folder / "rows.npz", input=rows)
    file = DatasetFile(path=str(folder / "rows.npz"), format=DatasetFormat.NPZ)
    return Context(scratch=folder, calibration=open_dataset(file))


@pytest.mark.parametrize(
    ("estimator", "split", "alpha"),
    [
        (DecisionTreeClassifier(random_state=0), DIGITS, 0.002),
        (DecisionTreeClassifier(random_state=0, criterion="entropy", class_weight="balanced"), CANCER, 0.02),
        (DecisionTreeRegressor(random_state=0), DIABETES, 20.0),
        (RandomForestClassifier(8, random_state=0), DIGITS, 0.003),
        (ExtraTreesRegressor(8, random_state=0, bootstrap=True), DIABETES, 30.0),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else "",
)
def test_cost_complexity_pruning_gives_the_tree_that_scikit_learn_grows_with_ccp_alpha(
    estimator: Any, split: list[np.ndarray], alpha: float, tmp_path: Path
) -> None:
    train, test, labels, _ = split
    pruned = apply(CostComplexityPrune(alpha=alpha), estimator.fit(train, labels), Context(scratch=tmp_path))
    refitted = type(estimator)(**{**estimator.get_params(), "ccp_alpha": alpha}).fit(train, labels)
    assert nodes(pruned.estimator) == nodes(refitted) < nodes(estimator)
    np.testing.assert_array_equal(scores(pruned.estimator, test), scores(refitted, test))


def test_pruned_nodes_leave_the_file_and_the_original_stays_as_it_was(tmp_path: Path) -> None:
    train, test, labels, _ = DIGITS
    forest = RandomForestClassifier(10, random_state=0).fit(train, labels)
    before = scores(forest, test)
    original = TreeModel(forest, 0)
    pruned = apply(CostComplexityPrune(alpha=0.005), forest, Context(scratch=tmp_path))
    pruned.save(tmp_path / "pruned.skops")
    reopened = open_model(tmp_path / "pruned.skops", Context(scratch=tmp_path))
    assert (tmp_path / "pruned.skops").stat().st_size == pruned.size_bytes() < 0.6 * original.size_bytes()
    np.testing.assert_array_equal(scores(reopened.estimator, test), scores(pruned.estimator, test))
    np.testing.assert_array_equal(scores(forest, test), before)


def test_an_alpha_of_zero_keeps_every_prediction(tmp_path: Path) -> None:
    train, test, labels, _ = CANCER
    tree = DecisionTreeClassifier(random_state=0).fit(train, labels)
    pruned = apply(CostComplexityPrune(alpha=0.0), tree, Context(scratch=tmp_path))
    np.testing.assert_array_equal(pruned.estimator.predict(test), tree.predict(test))


def test_an_alpha_beyond_all_impurity_leaves_the_root(tmp_path: Path) -> None:
    train, test, labels, _ = CANCER
    tree = DecisionTreeClassifier(random_state=0).fit(train, labels)
    pruned = apply(CostComplexityPrune(alpha=1.0), tree, Context(scratch=tmp_path))
    assert nodes(pruned.estimator) == 1
    assert len(np.unique(pruned.estimator.predict(test))) == 1


def test_a_pruned_booster_stays_close_to_what_it_predicted(tmp_path: Path) -> None:
    train, test, labels, truth = DIABETES
    booster = GradientBoostingRegressor(random_state=0, max_depth=5).fit(train, labels)
    pruned = apply(CostComplexityPrune(alpha=20.0), booster, Context(scratch=tmp_path)).estimator
    assert nodes(pruned) < 0.5 * nodes(booster)
    assert pruned.score(test, truth) > booster.score(test, truth) - 0.02


def test_stale_out_of_bag_figures_go_and_a_warning_says_so(tmp_path: Path) -> None:
    train, _, labels, _ = CANCER
    forest = RandomForestClassifier(40, random_state=0, oob_score=True).fit(train, labels)
    context = Context(scratch=tmp_path)
    pruned = apply(CostComplexityPrune(alpha=0.01), forest, context)
    assert not hasattr(pruned.estimator, "oob_score_")
    assert any("Out-of-bag" in warning for warning in context.warnings)


def test_histogram_boosters_are_refused_for_want_of_impurities(tmp_path: Path) -> None:
    booster = HistGradientBoostingClassifier(max_iter=2).fit(CANCER[0], CANCER[2])
    with pytest.raises(UnsupportedTechnique, match="impurities"):
        apply(CostComplexityPrune(), booster, Context(scratch=tmp_path))


def greedy_subset(forest: Any, rows: np.ndarray, keep: int) -> Any:
    """The usual peer: trees added one by one so that their plain mean comes nearest to the forest's."""
    made = contributions(forest, rows)
    whole, chosen, total = made.mean(axis=0), [], np.zeros(made.shape[1:])
    for size in range(1, keep + 1):
        errors = [np.inf if i in chosen else np.sum(((total + made[i]) / size - whole) ** 2) for i in range(len(made))]
        chosen.append(int(np.argmin(errors)))
        total += made[chosen[-1]]
    return with_members(forest, chosen, np.ones(keep))


def test_ensemble_pruning_is_no_further_from_the_forest_than_greedy_selection(tmp_path: Path) -> None:
    train, test, labels, _ = DIGITS
    forest = RandomForestClassifier(60, random_state=0).fit(train, labels)
    whole = scores(forest, test)
    pruned = apply(EnsemblePrune(keep=0.2), forest, with_rows(tmp_path, train))
    peer = greedy_subset(forest, train.astype(np.float32), 12)
    ours = np.mean((scores(pruned.estimator, test) - whole) ** 2)
    assert len(pruned.estimator.estimators_) <= 12
    assert ours <= 1.05 * np.mean((scores(peer, test) - whole) ** 2)
    assert pruned.size_bytes() < 0.25 * TreeModel(forest, 0).size_bytes()


@pytest.mark.parametrize("split", [DIGITS, CANCER], ids=["digits", "cancer"])
def test_half_of_a_forest_is_nearly_as_accurate_as_all_of_it(split: list[np.ndarray], tmp_path: Path) -> None:
    train, test, labels, truth = split
    forest = RandomForestClassifier(60, random_state=0).fit(train, labels)
    pruned = apply(EnsemblePrune(keep=0.5), forest, with_rows(tmp_path, train))
    assert pruned.estimator.score(test, truth) >= forest.score(test, truth) - 0.015
    assert pruned.size_bytes() < 0.55 * TreeModel(forest, 0).size_bytes()


@pytest.mark.parametrize(
    "booster",
    [
        GradientBoostingClassifier(n_estimators=30, random_state=0, max_depth=2),
        HistGradientBoostingClassifier(max_iter=30, random_state=0),
    ],
    ids=lambda booster: type(booster).__name__,
)
def test_boosters_keep_re_weighted_stages_and_beat_simply_stopping_early(booster: Any, tmp_path: Path) -> None:
    train, test, labels, _ = CANCER
    booster.fit(train, labels)
    pruned = apply(EnsemblePrune(keep=0.3), booster, with_rows(tmp_path, train)).estimator
    early = with_members(booster, range(9), np.ones(9))
    whole = scores(booster, test)
    assert np.mean((scores(pruned, test) - whole) ** 2) < 0.5 * np.mean((scores(early, test) - whole) ** 2)


@pytest.mark.parametrize("keep", [0.05, 0.5])
def test_probabilities_of_a_pruned_forest_are_probabilities(keep: float, tmp_path: Path) -> None:
    train, test, labels, _ = CANCER
    forest = RandomForestClassifier(20, random_state=0).fit(train, labels)
    made = scores(apply(EnsemblePrune(keep=keep), forest, with_rows(tmp_path, train[:100])).estimator, test)
    assert made.min() >= 0.0
    np.testing.assert_allclose(made.sum(axis=1), 1.0, atol=1e-9)


def test_a_pruned_ensemble_opens_again_and_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    train, test, labels, _ = DIABETES
    forest = RandomForestRegressor(12, random_state=0).fit(train, labels)
    context = with_rows(tmp_path, train)
    for name in ("one", "two"):
        apply(EnsemblePrune(keep=0.5), forest, context).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    reopened = open_model(tmp_path / "one", context)
    assert np.isfinite(reopened.run({"input": test.astype(np.float32)})[0]).all()


def test_a_single_tree_has_no_members_to_leave_out(tmp_path: Path) -> None:
    tree = DecisionTreeClassifier(max_depth=2).fit(CANCER[0], CANCER[2])
    with pytest.raises(UnsupportedTechnique, match="single tree"):
        apply(EnsemblePrune(), tree, with_rows(tmp_path, CANCER[0]))


def test_without_rows_there_is_nothing_to_compare_on(tmp_path: Path) -> None:
    forest = RandomForestClassifier(3).fit(CANCER[0], CANCER[2])
    with pytest.raises(UnsupportedTechnique, match="rows"):
        apply(EnsemblePrune(), forest, Context(scratch=tmp_path))


def test_selection_finds_the_members_that_matter() -> None:
    random = np.random.default_rng(0)
    useful = random.normal(size=(3, 400))
    made = np.concatenate([useful, 1e-3 * random.normal(size=(5, 400))])
    grams = [made[:, fold::2] @ made[:, fold::2].T for fold in range(2)]
    chosen, weights = select_members(grams, np.full(8, 1 / 8), 3)
    assert chosen.tolist() == [0, 1, 2]
    np.testing.assert_allclose(weights, 1 / 8, rtol=0.05)
