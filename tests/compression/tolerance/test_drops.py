"""A drop means the same everywhere: points where a metric has them, shares where it has none."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tests.compression.judging import accuracy, logits
from workers.compression.data import Dataset
from workers.compression.datasets.labels import Labels
from workers.compression.families.model import Array, Feeds
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.specs.errors import DatasetMismatch
from workers.compression.specs.formats import Task
from workers.compression.tolerance.drops import JudgingRows, drop_between


@pytest.mark.parametrize(
    ("metric", "before", "after", "drop"),
    [
        ("accuracy", 0.9, 0.85, 0.05),
        ("fidelity", 1.0, 0.97, 0.03),
        ("accuracy", 0.9, 0.95, -0.05),
        ("rmse", 2.0, 2.5, 0.25),
        ("r2", 0.8, 0.6, 0.25),
        ("rmse", 0.0, 0.1, 1e18),
        ("rmse", 0.0, 0.0, 0.0),
        ("spearman", 0.5, float("nan"), 1e18),
    ],
)
def test_points_for_bounded_metrics_and_shares_for_others(
    metric: str, before: float, after: float, drop: float
) -> None:
    assert drop_between(metric, before, after) == pytest.approx(drop)


def test_the_figures_are_those_of_the_task_and_the_interval_is_paired(
    open_onnx: Callable[[str], OnnxModel], digits: Callable[..., Dataset]
) -> None:
    model, rows = open_onnx("mlp"), digits("mlp")
    weight = model.weights()[0]
    pruned = np.where(np.abs(model.matrix(weight)) > 0.1, model.matrix(weight), 0.0).astype(np.float32)
    judging = JudgingRows(model, model.run, rows)
    same = judging.judged(model.run, np.random.default_rng(0))
    assert (same.drop, same.rows) == (0.0, rows.rows)
    assert same.interval is not None
    assert (same.interval.low, same.interval.high) == (0.0, 0.0)
    before = accuracy(model, rows)
    with model.varied([(weight, pruned)]) as run:
        judged = judging.judged(run, np.random.default_rng(0))
    model.replace([(weight, pruned)])
    assert judged.original == pytest.approx(before)
    assert judged.compressed == pytest.approx(accuracy(model, rows))
    assert judged.interval is not None
    assert judged.interval.low <= judged.drop <= judged.interval.high
    # Two independent samples of these accuracies would be told apart half as well.
    assert judged.interval.high - judged.interval.low < 2 * 1.96 * np.sqrt(2 * before * (1 - before) / rows.rows)


def test_an_error_of_values_counts_relative_to_what_it_was(
    open_onnx: Callable[[str], OnnxModel], digits: Callable[..., Dataset]
) -> None:
    model, rows = open_onnx("mlp"), digits("mlp")
    answers = logits(model, rows)
    wanted = np.empty((rows.source.rows, answers.shape[1]))
    wanted[rows.order] = answers + 0.5
    judging = JudgingRows(model, model.run, replace(rows, labels=Labels(Task.REGRESSION, targets=wanted)))
    assert (judging.metric, judging.before) == ("rmse", pytest.approx(0.5, abs=1e-5))
    assert judging.drop(lambda feeds: [model.run(feeds)[0] - 0.25]).value == pytest.approx(0.5, abs=1e-5)


def test_fidelity_needs_no_labels(open_onnx: Callable[[str], OnnxModel], digits: Callable[..., Dataset]) -> None:
    model = open_onnx("mlp")
    judging = JudgingRows(model, model.run, digits("mlp"), "fidelity")
    assert judging.before == pytest.approx(1.0)
    assert judging.drop(lambda feeds: [-model.run(feeds)[0]]).value == pytest.approx(2.0)


def test_a_model_that_gives_no_numbers_has_lost_everything(
    open_onnx: Callable[[str], OnnxModel], digits: Callable[..., Dataset]
) -> None:
    model = open_onnx("mlp")

    def broken(feeds: Feeds) -> list[Array]:
        return [np.full_like(model.run(feeds)[0], np.nan)]

    assert JudgingRows(model, model.run, digits("mlp")).drop(broken).value == 1e18


def test_a_metric_that_the_rows_do_not_define_is_refused(
    open_onnx: Callable[[str], OnnxModel], digits: Callable[..., Dataset]
) -> None:
    model = open_onnx("mlp")
    with pytest.raises(DatasetMismatch, match="auc"):
        JudgingRows(model, model.run, digits("mlp"), "auc")
