import json
from pathlib import Path

import pytest
import typer

from app.cli.specs import parse_data, parse_recipe, parse_target


def test_a_technique_and_its_settings_make_a_recipe() -> None:
    assert parse_recipe(None, ["quantize.static"], ["samples=128", 'exclude=["*head*"]', "range=percentile"]) == [
        {
            "technique": "quantize",
            "method": "static",
            "samples": 128,
            "exclude": ["*head*"],
            "range": "percentile",
        }
    ]


def test_without_a_method_the_service_chooses_the_default() -> None:
    assert parse_recipe(None, ["quantize"], []) == [{"technique": "quantize"}]


def test_with_several_techniques_a_setting_names_its_step() -> None:
    assert parse_recipe(None, ["prune", "quantize"], ["0.sparsity=0.9"]) == [
        {"technique": "prune", "sparsity": 0.9},
        {"technique": "quantize"},
    ]


@pytest.mark.parametrize("setting", ["sparsity=0.9", "2.sparsity=0.9", "0.sparsity", "x.sparsity=1"])
def test_a_setting_that_fits_no_step_is_a_usage_error(setting: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_recipe(None, ["prune", "quantize"], [setting])


@pytest.mark.parametrize(
    "content", [[{"technique": "quantize"}], {"technique": "quantize"}, {"recipe": [{"technique": "quantize"}]}]
)
def test_a_recipe_file_is_a_list_a_step_or_a_spec(content: object, tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(content))
    assert parse_recipe(file, [], []) == [{"technique": "quantize"}]


def test_a_broken_recipe_file_is_a_usage_error(tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    file.write_text("[{")
    with pytest.raises(typer.BadParameter, match=r"recipe\.json"):
        parse_recipe(file, [], [])


def test_neither_or_both_ways_to_give_a_recipe_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter):
        parse_recipe(None, [], [])
    with pytest.raises(typer.BadParameter):
        parse_recipe(tmp_path / "recipe.json", ["quantize"], [])


def test_bare_data_serves_calibration_and_evaluation() -> None:
    assert parse_data(["digits.npz"]) == {"calibration": "digits.npz", "evaluation": "digits.npz"}


def test_data_can_name_its_role_and_a_path_may_hold_an_equals_sign() -> None:
    assert parse_data(["train=a.npz", "evaluation=dst_1"]) == {"train": "a.npz", "evaluation": "dst_1"}
    assert parse_data(["odd=name.npz"])["evaluation"] == "odd=name.npz"


def test_a_role_given_twice_is_a_usage_error() -> None:
    with pytest.raises(typer.BadParameter, match="evaluation"):
        parse_data(["a.npz", "evaluation=b.npz"])


def test_a_target_is_hardware_or_named_fields() -> None:
    assert parse_target(["cpu-avx2", "threads=2"]) == {"hardware": "cpu-avx2", "threads": 2}
