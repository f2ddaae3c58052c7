"""Metrics agree with scikit-learn and SciPy, and fidelity sums do not depend on how rows are batched."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from workers.compression import scores

SEEDS = st.integers(0, 2**32 - 1)


def some_rows(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    count = int(random.integers(5, 60))
    return random.integers(0, 3, count), np.round(random.normal(size=count), 1)


@given(SEEDS)
def test_correlations_are_those_of_scipy_ties_included(seed: int) -> None:
    targets, predictions = some_rows(seed)
    if len(set(targets)) < 2 or len(set(predictions)) < 2:
        assert math.isnan(scores.pearson(targets, predictions))
        return
    assert scores.spearman(targets, predictions) == pytest.approx(stats.spearmanr(targets, predictions).statistic)
    assert scores.pearson(targets, predictions) == pytest.approx(stats.pearsonr(targets, predictions).statistic)


@given(SEEDS)
def test_f1_and_auc_are_those_of_scikit_learn(seed: int) -> None:
    targets, predictions = some_rows(seed)
    labels = np.random.default_rng(seed + 1).integers(0, 3, len(targets))
    expected = reference.f1_score(targets, labels, average="macro", zero_division=0.0)
    assert scores.macro_f1(targets, labels) == pytest.approx(expected)
    binary = (targets > 0).astype(np.int64)
    if 0 < binary.sum() < len(binary):
        assert scores.binary_auc(binary, predictions) == pytest.approx(reference.roc_auc_score(binary, predictions))
    else:
        assert math.isnan(scores.binary_auc(binary, predictions))


@given(st.integers(0, 500), st.integers(1, 500))
def test_the_wilson_interval_holds_the_share_and_stays_within_bounds(correct: int, count: int) -> None:
    correct = min(correct, count)
    interval = scores.wilson_interval(correct, count)
    assert 0.0 <= interval.low <= correct / count <= interval.high <= 1.0


@settings(max_examples=25)
@given(SEEDS, st.integers(1, 9))
def test_fidelity_does_not_depend_on_batching(seed: int, size: int) -> None:
    random = np.random.default_rng(seed)
    original = random.normal(size=(20, 7)).astype(np.float32)
    compressed = original + random.normal(scale=0.1, size=original.shape).astype(np.float32)
    whole, parts = scores.FidelitySums(), scores.FidelitySums()
    whole.add(original, compressed, classes=True)
    for start in range(0, 20, size):
        parts.add(original[start : start + size], compressed[start : start + size], classes=True)
    left, right = whole.result(), parts.result()
    assert left.cosine == pytest.approx(right.cosine)
    assert left.sqnr_db == pytest.approx(right.sqnr_db)
    assert (left.top1_agreement, left.max_abs_error) == (right.top1_agreement, right.max_abs_error)


def test_equal_outputs_are_perfect_and_nan_is_noticed() -> None:
    rows = np.ones((4, 3), np.float32)
    same = scores.FidelitySums()
    same.add(rows, rows, classes=True)
    perfect = same.result()
    assert (perfect.cosine, perfect.sqnr_db, perfect.max_abs_error) == (1.0, scores.MAX_SQNR_DB, 0.0)
    broken = scores.FidelitySums()
    broken.add(rows, rows * np.nan, classes=False)
    assert not broken.finite


def test_a_bootstrap_interval_holds_the_estimate() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(size=200)
    made = truth + random.normal(scale=0.5, size=200)
    interval = scores.bootstrap_interval(scores.rmse, truth, made, random)
    assert interval is not None
    assert interval.low < scores.rmse(truth, made) < interval.high
