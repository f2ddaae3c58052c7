"""The sparsity that a tolerated drop allows is found, holds on other rows, and says so where it does not."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests import trained
from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.model import Model
from workers.compression.families.weights import CompressibleModel, Floats, Weight, as_compressible
from workers.compression.registry import family, handler_for
from workers.compression.specs.errors import ConstraintInfeasible, DatasetMismatch
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.job import Evaluation
from workers.compression.specs.metrics import FoundSparsity
from workers.compression.specs.steps.prune_weights import MagnitudePrune
from workers.compression.tolerance.drops import JudgingRows
from workers.compression.tolerance.finding import find_shares
from workers.compression.tolerance.prunable import PrunableWeights

Rows = tuple[Dataset, Dataset, Dataset]


@pytest.fixture
def rows(digits: Callable[..., Dataset]) -> Rows:
    """Selection, confirmation, and rows that the search never sees."""
    whole = digits("mlp")
    return (
        replace(whole, order=whole.order[:300]),
        replace(whole, order=whole.order[300:600]),
        replace(whole, order=whole.order[600:]),
    )


Open = Callable[..., CompressibleModel]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Open:
    """The trained perceptron, opened anew each time; its file is written once."""
    folder = tmp_path_factory.mktemp("models")
    writers = {ModelFormat.ONNX: trained.write_onnx, ModelFormat.PT2: trained.write_pt2}

    @cache
    def written(model_format: ModelFormat) -> Path:
        return writers[model_format]("mlp", folder / f"model.{model_format.value}")

    def open_model(model_format: ModelFormat = ModelFormat.ONNX) -> CompressibleModel:
        context = Context(scratch=folder)
        return as_compressible(family(model_format).open_model(written(model_format), context))

    return open_model


def pruned(
    model: Model, spec: MagnitudePrune, folder: Path, rows: Rows, **settings: object
) -> tuple[CompressibleModel, FoundSparsity, Context]:
    context = Context(scratch=folder, selection=rows[0], confirmation=rows[1], **settings)  # type: ignore[arg-type]
    made = as_compressible(handler_for(MagnitudePrune, model.format)(model, spec, context))
    assert context.found is not None
    return made, context.found, context


def without_smallest(matrix: Floats, share: float) -> Floats:
    size = np.abs(matrix)
    return np.where(size > np.quantile(size, share), matrix, np.float32(0))


def sparsity(model: CompressibleModel) -> float:
    matrices = [model.matrix(weight) for weight in model.weights()]
    return 1.0 - sum(map(np.count_nonzero, matrices)) / sum(matrix.size for matrix in matrices)


@pytest.mark.parametrize("model_format", [ModelFormat.ONNX, ModelFormat.PT2])
def test_the_confirmed_drop_is_within_the_limit_at_far_more_zeros_than_uniform_pruning_reaches(
    model_format: ModelFormat, opened: Open, rows: Rows, tmp_path: Path
) -> None:
    uniform = opened(model_format)
    judging = JudgingRows(uniform, uniform.run, rows[0])
    drops = {}
    for percent in range(50, 96, 5):
        values = [(weight, without_smallest(uniform.matrix(weight), percent / 100)) for weight in uniform.weights()]
        with uniform.varied(values) as run:
            drops[percent / 100] = judging.drop(run).value
    reached = max(total for total, drop in drops.items() if drop <= 0.03)
    made, found, context = pruned(opened(model_format), MagnitudePrune(max_drop=0.03), tmp_path, rows)
    assert found.confirmed
    assert found.selection.drop <= 0.03
    assert found.confirmation.drop <= 0.03
    assert (found.selection.rows, found.confirmation.rows) == (300, 300)
    assert sparsity(made) == pytest.approx(found.sparsity, abs=1e-3)
    assert found.evaluations <= 40
    assert 1.0 - found.sparsity < 0.7 * (1.0 - reached)
    assert f"sparsity {found.sparsity:.2%} found" in context.changes[0]
    # What is reported is what the model that came out does.
    kept = JudgingRows(opened(model_format), uniform.run, rows[1])
    assert kept.drop(made.run).value == pytest.approx(found.confirmation.drop)


def test_same_rows_same_zeros(opened: Open, rows: Rows, tmp_path: Path) -> None:
    spec = MagnitudePrune(max_drop=0.02)
    first, second = (pruned(opened(), spec, tmp_path, rows) for _ in range(2))
    assert first[1] == second[1]
    for weight in first[0].weights():
        np.testing.assert_array_equal(first[0].matrix(weight), second[0].matrix(weight))


def test_a_choice_that_a_few_rows_happened_to_like_is_seen_through(opened: Open, rows: Rows, tmp_path: Path) -> None:
    few = replace(rows[0], order=rows[0].order[:20])
    _, found, context = pruned(opened(), MagnitudePrune(max_drop=0.005), tmp_path, (few, *rows[1:]))
    assert found.selection.rows == 20
    assert found.selection.drop != found.confirmation.drop
    assert found.confirmations > 1
    assert any("20 rows" in warning for warning in context.warnings)
    assert found.confirmed == (found.confirmation.drop <= 0.005)
    assert found.confirmed or any("confirmation rows show" in warning for warning in context.warnings)


def test_without_a_sparsity_within_the_limit_the_error_names_what_is_possible(
    opened: Open, rows: Rows, tmp_path: Path
) -> None:
    model = opened()
    before = {weight.name: np.array(model.matrix(weight)) for weight in model.weights()}
    with pytest.raises(ConstraintInfeasible, match=r"Even with 0\.\d% zeros fidelity drops by .* at most 0 ") as error:
        pruned(model, MagnitudePrune(max_drop=0.0), tmp_path, rows, evaluation=Evaluation(metric="fidelity"))
    assert error.value.reason == "max_drop"
    for weight in model.weights():
        np.testing.assert_array_equal(model.matrix(weight), before[weight.name])


def test_a_limit_that_allows_everything_ends_at_the_most_that_is_tried(
    opened: Open, rows: Rows, tmp_path: Path
) -> None:
    made, found, context = pruned(opened(), MagnitudePrune(max_drop=1.0), tmp_path, rows)
    assert found.capped
    assert sparsity(made) == pytest.approx(0.99, abs=1e-3)
    assert found.evaluations == 1
    assert "the most that is tried" in context.changes[0]


def test_without_labels_the_outputs_direction_counts(opened: Open, rows: Rows, tmp_path: Path) -> None:
    made, found, _ = pruned(
        opened(), MagnitudePrune(max_drop=0.01), tmp_path, rows, evaluation=Evaluation(metric="fidelity")
    )
    assert (found.metric, found.selection.original) == ("fidelity", pytest.approx(1.0))
    assert found.confirmation.drop <= 0.01
    original = opened()
    unseen = JudgingRows(original, original.run, rows[2], "fidelity").drop(made.run)
    assert unseen.value == pytest.approx(found.confirmation.drop, abs=0.005)


def test_parts_are_pruned_by_whatever_function_is_given(opened: Open, rows: Rows, tmp_path: Path) -> None:
    """The search knows nothing of magnitudes: weights that go at random may go less far."""
    model = opened()
    random = {weight.name: np.random.default_rng(3).random(weight.matrix_shape) for weight in model.weights()}

    def at_random(weight: Weight, share: float) -> Floats:
        return np.where(random[weight.name] >= share, model.matrix(weight), np.float32(0))

    def smallest(weight: Weight, share: float) -> Floats:
        return without_smallest(model.matrix(weight), share)

    found = [
        find_shares(
            model,
            PrunableWeights(model, model.weights(), function),
            0.02,
            Context(scratch=tmp_path, selection=rows[0], confirmation=rows[1]),
        ).outcome
        for function in (at_random, smallest)
    ]
    assert found[0].sparsity < found[1].sparsity - 0.2


def test_rows_to_choose_by_are_asked_for(opened: Open, tmp_path: Path) -> None:
    with pytest.raises(DatasetMismatch, match="rows to select and to confirm"):
        handler_for(MagnitudePrune, ModelFormat.ONNX)(opened(), MagnitudePrune(max_drop=0.1), Context(scratch=tmp_path))


def test_models_that_cannot_be_run_are_refused_before_they_are_opened() -> None:
    step = MagnitudePrune(max_drop=0.01)
    assert "cannot be run" in str(step.refusal(ModelFormat.SAFETENSORS))
    assert step.refusal(ModelFormat.ONNX) is None
    assert (step.required(), step.sparsity) == (("selection",), None)
