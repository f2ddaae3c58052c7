"""Recipes are judged as a whole before anything runs."""

from itertools import permutations

import pytest

from app.jobs.recipe_checks import (
    RUNTIME_OF_FORMAT,
    check_order,
    check_techniques,
    find_conflicts,
    why_not,
    working_order,
)
from app.models.records import ModelRecord
from workers.compression.specs.errors import IncompatibleSteps, UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.recipe import STEP_CLASSES, STEPS_BY_KEY
from workers.compression.specs.step import Step

DYNAMIC, STATIC, FLOAT16, PRUNE = (
    STEPS_BY_KEY[key]() for key in ("quantize.dynamic", "quantize.static", "quantize.float16", "prune.magnitude")
)


def model(model_format: str = "onnx", family: str = "neural_network") -> ModelRecord:
    return ModelRecord(id="mdl_a", format=model_format, family=family, status="ready")


def test_pruning_before_quantizing_is_fine() -> None:
    check_order([PRUNE, DYNAMIC])


def test_pruning_after_quantizing_is_refused_at_the_later_step() -> None:
    with pytest.raises(IncompatibleSteps) as refused:
        check_order([PRUNE, STATIC, PRUNE])
    assert refused.value.pointer == "/recipe/2"
    assert "Put prune.magnitude first" in refused.value.detail


def test_two_quantizations_exclude_each_other_in_any_order() -> None:
    for recipe in permutations([DYNAMIC, FLOAT16]):
        [conflict] = find_conflicts(recipe)
        assert "only one of them" in conflict.detail


def test_a_working_order_is_found_where_there_is_one() -> None:
    recipe = [DYNAMIC, PRUNE]
    assert [recipe[index] for index in working_order(recipe)] == [PRUNE, DYNAMIC]
    assert working_order([PRUNE, DYNAMIC]) == [0, 1]


def test_without_a_working_order_the_given_one_stays() -> None:
    assert working_order([STATIC, DYNAMIC]) == [0, 1]


def test_a_step_that_does_not_serve_the_format_names_what_does() -> None:
    with pytest.raises(UnsupportedTechnique) as refused:
        check_techniques([PRUNE, STATIC], model("huggingface"))
    assert refused.value.pointer == "/recipe/1"
    assert "serves onnx, pt2 models" in refused.value.detail
    assert "quantize.dynamic" in refused.value.detail


@pytest.mark.parametrize("step", STEP_CLASSES, ids=lambda step: step.key())
@pytest.mark.parametrize("model_format", ModelFormat)
def test_a_step_is_accepted_exactly_for_the_formats_it_declares(step: type[Step], model_format: ModelFormat) -> None:
    refusal = why_not(step, model(model_format, step.families[0]))
    assert (refusal is None) == (model_format in step.formats)


def test_every_format_has_a_runtime() -> None:
    assert set(RUNTIME_OF_FORMAT) == set(ModelFormat)
