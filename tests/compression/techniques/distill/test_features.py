import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests import trained
from tests.compression.techniques.distill.students import Small, other_tokenizer, taught, write_bert, write_pt2
from tests.compression.training.attempts import digits, opened
from tests.e2e import tiny_bert
from workers.compression.families.trainable import TrainableModel
from workers.compression.specs.errors import EngineError, UnsupportedTechnique
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import Data, DatasetFile, ModelFile
from workers.compression.specs.steps.distill import FeaturesDistill, LogitsDistill
from workers.compression.training.features import AttentionRelations, HiddenStates
from workers.compression.training.objectives import Made, Objective, Rows

SPEC = FeaturesDistill(epochs=4, learning_rate=3e-3)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return write_bert(tmp_path_factory.mktemp("teacher"), layers=3, width=32, seed=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    path = tmp_path_factory.mktemp("data") / "texts.jsonl"
    texts = (" ".join(tiny_bert.words(image)) for image in trained.digits_split()[0][:400])
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return Data(train=DatasetFile(path=str(path), format=DatasetFormat.JSONL))


def apart(student: TrainableModel, teacher: TrainableModel, objective: Objective) -> float:
    """The objective on test digits that are not among the rows of ``data``."""
    ids = tiny_bert.token_ids(trained.digits_split()[1][300:400])
    feeds = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    mine, theirs = (_features(model, feeds) for model in (student, teacher))
    rows = Rows((), len(ids), mask=feeds["attention_mask"], teacher_features=theirs)
    return float(objective.loss(Made((), mine), rows))


def _features(model: TrainableModel, feeds: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    tapped = model.trainable().tapped
    assert tapped is not None
    with torch.no_grad():
        _, features = tapped(*(feeds[port.name] for port in model.inputs))
    return dict(features)


def improved(
    student: ModelFile, teacher: ModelFile, made: TrainableModel, objective: Objective, scratch: Path
) -> float:
    """What share of its distance a student kept."""
    follows = opened(teacher, scratch)
    return apart(made, follows, objective) / apart(opened(student, scratch), follows, objective)


def test_a_student_of_fewer_layers_follows_hidden_states_and_attention(
    teacher: ModelFile, data: Data, tmp_path: Path
) -> None:
    student = write_bert(tmp_path / "student", layers=1, width=32, seed=1)
    made = taught(tmp_path / "a", teacher, student, data, SPEC)
    outputs_only = taught(tmp_path / "b", teacher, student, data, LogitsDistill(epochs=4, learning_rate=3e-3))

    assert "2 of 2 hidden states follow the original's" in made.logs
    assert "attention layer 0 follows layer 2 in 8 heads" in made.logs
    for objective in (HiddenStates((("hidden.0", "hidden.0"), ("hidden.1", "hidden.3"))), AttentionRelations(0, 2, 8)):
        kept = improved(student, teacher, made.open(), objective, tmp_path)
        assert kept < 0.8
        assert kept < 0.9 * improved(student, teacher, outputs_only.open(), objective, tmp_path)


def test_a_student_of_another_width_follows_attention_alone(teacher: ModelFile, data: Data, tmp_path: Path) -> None:
    student = write_bert(tmp_path / "student", layers=2, width=24, seed=1)
    made = taught(tmp_path / "a", teacher, student, data, SPEC)

    assert "hidden states follow" not in made.logs
    assert "attention layer 1 follows layer 2 in 8 heads" in made.logs
    assert improved(student, teacher, made.open(), AttentionRelations(1, 2, 8), tmp_path) < 0.8


def test_tokens_of_another_tokenizer_are_not_compared_one_by_one(
    teacher: ModelFile, data: Data, tmp_path: Path
) -> None:
    student = write_bert(tmp_path / "student", layers=2, width=32, seed=1, tokenizer=other_tokenizer())
    with pytest.raises(UnsupportedTechnique) as refusal:
        taught(tmp_path / "a", teacher, student, data, SPEC)
    _advises_logits(refusal.value)


@pytest.mark.parametrize("weights", [{}, {"hidden": 0.0, "attention": 0.0}], ids=str)
def test_networks_of_other_widths_have_no_features_in_common(weights: dict[str, float], tmp_path: Path) -> None:
    teacher = ModelFile(path=str(trained.write_pt2("mlp", tmp_path / "teacher.pt2")), format=ModelFormat.PT2)
    student = write_pt2(Small(), tmp_path / "student.pt2")
    rows = Data(train=digits("mlp", tmp_path / "train.npz"))
    with pytest.raises(UnsupportedTechnique) as refusal:
        taught(tmp_path / "a", teacher, student, rows, FeaturesDistill.model_validate(weights))
    _advises_logits(refusal.value)


def test_plain_networks_follow_layers_of_the_same_width(tmp_path: Path) -> None:
    teacher = ModelFile(path=str(trained.write_pt2("mlp", tmp_path / "teacher.pt2")), format=ModelFormat.PT2)
    student = write_pt2(Small(width=256), tmp_path / "student.pt2")
    rows = Data(train=digits("mlp", tmp_path / "train.npz", labels=False))
    made = taught(tmp_path / "a", teacher, student, rows, SPEC)

    assert "1 of 1 hidden states follow the original's" in made.logs
    taps = [("first", "0")]
    kept = _squared_error(made.open(), opened(teacher, tmp_path), taps)
    assert kept < 0.7 * _squared_error(opened(student, tmp_path), opened(teacher, tmp_path), taps)


def _squared_error(student: TrainableModel, teacher: TrainableModel, taps: Sequence[tuple[str, str]]) -> float:
    images = torch.from_numpy(trained.digits_split()[1][:100])
    mine, theirs = (_features(model, {port.name: images for port in model.inputs}) for model in (student, teacher))
    return float(HiddenStates(taps).loss(Made((), mine), Rows((), len(images), teacher_features=theirs)))


def _advises_logits(refusal: EngineError) -> None:
    assert refusal.reason == "no_common_features"
    assert "distill.logits" in (refusal.hint or "")
    assert refusal.step == "recipe/0"
