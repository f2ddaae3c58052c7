"""The engine alone: files in, artifact and report out, and no row trained on is measured on."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

from tests import trained
from workers.compression import alone
from workers.compression.data import open_dataset
from workers.compression.specs.messages import Data
from workers.compression.specs.steps.finetune import HeadFinetune
from workers.compression.specs.steps.prune_weights import MagnitudePrune
from workers.compression.specs.steps.quantize import DynamicQuantize, StaticQuantize

STUDENT = "mdl_" + "0" * 26


def files(**given: Path) -> Namespace:
    return Namespace(**{"data": None, "train": None, "calibration": None, "seed": 7} | given)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return trained.write_npz("mlp", tmp_path / "digits.npz")


@pytest.fixture
def others(tmp_path: Path) -> Path:
    return trained.write_npz("mlp", tmp_path / "others.npz", train=True)


def parts(data: Data) -> dict[str, tuple[str, tuple[float, float]]]:
    roles = {"train": data.train, "calibration": data.calibration, "evaluation": data.evaluation}
    return {role: (Path(file.path).name, file.part) for role, file in roles.items() if file is not None}


@pytest.mark.parametrize("option", ["data", "train"])
def test_rows_to_train_on_are_not_measured_on(option: str, digits: Path, tmp_path: Path) -> None:
    shared = alone.share_out(files(**{option: digits}), tmp_path / "scratch", (HeadFinetune(),))
    assert shared.train is not None
    assert shared.evaluation is not None
    train, evaluation = open_dataset(shared.train), open_dataset(shared.evaluation)
    assert not set(train.order) & set(evaluation.order)
    assert train.rows + evaluation.rows == train.source.rows
    assert train.rows == pytest.approx(0.6 * train.source.rows, abs=1)


def test_files_of_their_own_are_used_whole(digits: Path, others: Path, tmp_path: Path) -> None:
    whole = (0.0, 1.0)
    both = alone.share_out(files(data=digits, train=others), tmp_path / "a", (HeadFinetune(), StaticQuantize()))
    assert parts(both) == {"train": ("others.npz", whole), "evaluation": ("digits.npz", whole)}
    needless = alone.share_out(files(data=digits), tmp_path / "b", (DynamicQuantize(),))
    assert parts(needless) == {"evaluation": ("digits.npz", whole)}


def test_rows_to_choose_by_to_confirm_and_to_evaluate_on_are_different_ones(digits: Path, tmp_path: Path) -> None:
    shared = alone.share_out(files(data=digits), tmp_path / "scratch", (MagnitudePrune(max_drop=0.01),))
    roles = [shared.selection, shared.confirmation, shared.evaluation]
    numbers = [set(open_dataset(file).order.tolist()) for file in roles if file is not None]
    assert len(numbers) == 3
    assert set.union(*numbers) == set(range(len(trained.digits_split()[1])))
    assert sum(map(len, numbers)) == len(trained.digits_split()[1])


def test_one_file_given_twice_is_divided(digits: Path, tmp_path: Path) -> None:
    shared = alone.share_out(files(data=digits, train=digits), tmp_path / "scratch", (HeadFinetune(),))
    assert parts(shared) == {"train": ("digits.npz", (0.0, 0.6)), "evaluation": ("digits.npz", (0.6, 1.0))}


def test_a_student_is_distilled_and_its_curves_are_reported(
    digits: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, student = tmp_path / "teacher.onnx", tmp_path / "student.pt2"
    trained.write_onnx("mlp", teacher)
    trained.write_pt2("mlp", student)
    step = {"technique": "distill", "method": "logits", "student": STUDENT, "max_steps": 4}
    (tmp_path / "recipe.json").write_text(json.dumps([step]))
    command = [str(teacher), "--recipe", str(tmp_path / "recipe.json"), "--output", str(tmp_path / "out")]
    command += ["--data", str(digits), "--train", str(others)]

    assert alone.main(command) == 1
    assert "--student" in capsys.readouterr().err

    assert alone.main([*command, "--student", str(student)]) == 0
    made = json.loads((tmp_path / "out" / "report.json").read_text())
    assert made["artifact"]["format"] == "pt2"
    assert made["metrics"]["compressed"]["fidelity"]["cosine"] > 0.9
    assert made["metrics"]["compressed"]["accuracy"] > 0.9
    assert "train/loss" in {curve["name"] for curve in made["steps"][0]["curves"]}
    assert "<polyline" in (tmp_path / "out" / "report.html").read_text()


def test_a_separate_adapter_is_put_beside_the_artifact(digits: Path, others: Path, tmp_path: Path) -> None:
    model = trained.write_pt2("mlp", tmp_path / "digits.pt2")
    step = {"technique": "finetune", "method": "lora", "merge": False, "rank": 2, "max_steps": 2}
    (tmp_path / "recipe.json").write_text(json.dumps([step]))
    command = [str(model), "--recipe", str(tmp_path / "recipe.json"), "--output", str(tmp_path / "out")]
    assert alone.main([*command, "--data", str(digits), "--train", str(others)]) == 0
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert len(made - {"model.pt2", "report.json", "report.md", "report.html"}) == 1
