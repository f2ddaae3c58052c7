"""Roles never share rows, and every role that is needed gets some."""

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.jobs.schemas import JobCreate, Split
from app.jobs.splitting import split_roles

Step = dict[str, Any]

DYNAMIC = {"technique": "quantize"}
STATIC = {"technique": "quantize", "method": "static"}
FINETUNE = {"technique": "finetune"}
SEARCH = {"technique": "prune", "max_drop": 0.01}
DATASETS = st.sampled_from([None, "dst_a", "dst_b", "dst_c"])


def split(step: Step, **data: str) -> Split:
    return split_roles(JobCreate.model_validate({"model": "mdl_a", "recipe": [step], "data": data, "seed": 7}))


def test_without_data_there_are_no_roles_and_the_summary_says_synthetic() -> None:
    found = split(DYNAMIC)
    assert found.roles == {}
    assert "synthetic" in found.summary


def test_datasets_of_their_own_are_used_whole() -> None:
    found = split(STATIC, calibration="dst_a", evaluation="dst_b")
    assert {role: part.part for role, part in found.roles.items()} == {
        "calibration": (0.0, 1.0),
        "evaluation": (0.0, 1.0),
    }


def test_evaluation_data_gives_a_fifth_to_calibration_where_a_step_needs_it() -> None:
    found = split(STATIC, evaluation="dst_a")
    assert found.roles["calibration"].part == (0.0, 0.2)
    assert found.roles["evaluation"].part == (0.2, 1.0)
    assert "20 % calibration, 80 % evaluation" in found.summary
    assert found.seed == 7


def test_evaluation_data_stays_whole_where_no_step_needs_calibration() -> None:
    assert set(split(DYNAMIC, evaluation="dst_a").roles) == {"evaluation"}


@pytest.mark.parametrize(
    ("data", "shares"),
    [
        ({"evaluation": "dst_a"}, {"train": (0.0, 0.75), "evaluation": (0.75, 1.0)}),
        ({"calibration": "dst_a"}, {"train": (0.0, 0.6), "calibration": (0.6, 0.8), "evaluation": (0.8, 1.0)}),
        (
            {"calibration": "dst_a", "evaluation": "dst_b"},
            {"train": (0.0, 0.75), "calibration": (0.75, 1.0), "evaluation": (0.0, 1.0)},
        ),
        ({"train": "dst_a", "evaluation": "dst_b"}, {"train": (0.0, 1.0), "evaluation": (0.0, 1.0)}),
    ],
)
def test_rows_to_train_on_are_taken_from_what_is_there_where_a_step_needs_them(
    data: dict[str, str], shares: dict[str, tuple[float, float]]
) -> None:
    assert {role: part.part for role, part in split(FINETUNE, **data).roles.items()} == shares


def test_the_summary_says_which_rows_are_trained_on() -> None:
    assert (
        "dst_a was split into disjoint, seeded, stratified parts: 75 % train, 25 % evaluation."
        in split(FINETUNE, evaluation="dst_a").summary
    )


@pytest.mark.parametrize(
    ("data", "shares"),
    [
        ({"evaluation": "dst_a"}, {"selection": 3 / 14, "confirmation": 3 / 14, "evaluation": 8 / 14}),
        ({"train": "dst_a"}, {"train": 6 / 14, "selection": 3 / 14, "confirmation": 3 / 14, "evaluation": 2 / 14}),
        (
            {"train": "dst_a", "evaluation": "dst_b"},
            {"train": 1.0, "selection": 3 / 14, "confirmation": 3 / 14, "evaluation": 8 / 14},
        ),
    ],
)
def test_rows_to_choose_and_to_confirm_by_are_set_aside_of_those_to_evaluate_on(
    data: dict[str, str], shares: dict[str, float]
) -> None:
    found = split(SEARCH, **data)
    assert {role: part.part[1] - part.part[0] for role, part in found.roles.items()} == pytest.approx(shares, abs=1e-5)
    assert found.roles["selection"].dataset == found.roles["evaluation"].dataset
    assert "21 % selection, 21 % confirmation" in found.summary


def test_training_rows_are_never_measured_on() -> None:
    found = split(DYNAMIC, train="dst_a")
    assert found.roles["train"].part == (0.0, 0.75)
    assert found.roles["evaluation"].part == (0.75, 1.0)


@given(
    train=DATASETS, calibration=DATASETS, evaluation=DATASETS, step=st.sampled_from([DYNAMIC, STATIC, FINETUNE, SEARCH])
)
def test_no_row_plays_two_roles(train: str | None, calibration: str | None, evaluation: str | None, step: Step) -> None:
    named = {"train": train, "calibration": calibration, "evaluation": evaluation}
    given_roles = {role: dataset for role, dataset in named.items() if dataset}
    found = split(step, **given_roles).roles
    assert set(given_roles) <= set(found)
    assert all(found[role].dataset == dataset for role, dataset in given_roles.items())
    assert ("evaluation" in found) == bool(given_roles)
    for one, other in combinations(found.values(), 2):
        if one.dataset == other.dataset:
            assert one.part[1] <= other.part[0] or other.part[1] <= one.part[0]


@pytest.mark.parametrize("step", [DYNAMIC, STATIC, FINETUNE, SEARCH])
def test_parts_of_a_shared_dataset_cover_it(step: Step) -> None:
    parts = [part.part for part in split(step, train="dst_a", calibration="dst_a", evaluation="dst_a").roles.values()]
    assert [low for low, _ in parts] == [0.0, *[high for _, high in parts[:-1]]]
    assert parts[-1][1] == 1.0
