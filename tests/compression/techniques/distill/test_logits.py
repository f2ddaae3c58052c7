import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests import trained
from tests.compression.judging import accuracy
from tests.compression.techniques.distill.students import (
    Small,
    agreement,
    answers,
    other_tokenizer,
    taught,
    write_bert,
    write_onnx,
    write_pt2,
)
from tests.compression.training.attempts import digits, opened, rows, state, write_network
from tests.e2e import tiny_bert
from workers.compression.families.model import Model
from workers.compression.specs.errors import DatasetMismatch
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import Data, DatasetFile, ModelFile
from workers.compression.specs.steps.distill import LogitsDistill
from workers.compression.specs.steps.prune_weights import MagnitudePrune

SPEC = LogitsDistill(epochs=10, learning_rate=1e-2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distill")


@pytest.fixture(scope="module")
def teacher(folder: Path) -> ModelFile:
    return ModelFile(path=str(trained.write_pt2("mlp", folder / "teacher.pt2")), format=ModelFormat.PT2)


@pytest.fixture(scope="module")
def student(folder: Path) -> ModelFile:
    return write_pt2(Small(), folder / "student.pt2")


@pytest.fixture(scope="module")
def test_rows(folder: Path) -> DatasetFile:
    return DatasetFile(path=str(trained.write_npz("mlp", folder / "test.npz")), format=DatasetFormat.NPZ)


@pytest.fixture(scope="module")
def labelled(folder: Path, test_rows: DatasetFile) -> Data:
    return Data(train=digits("mlp", folder / "train.npz"), evaluation=test_rows)


@pytest.fixture(scope="module")
def unlabelled(folder: Path) -> Data:
    return Data(train=digits("mlp", folder / "unlabelled.npz", labels=False))


@pytest.fixture(scope="module")
def mislabelled(folder: Path, test_rows: DatasetFile) -> Data:
    images, _, labels, _ = trained.digits_split()
    np.savez(folder / "wrong.npz", input=images, target=(labels + 3) % 10)
    return Data(train=DatasetFile(path=str(folder / "wrong.npz"), format=DatasetFormat.NPZ), evaluation=test_rows)


@pytest.mark.parametrize("known", ["labelled", "unlabelled"])
def test_a_student_comes_to_answer_as_its_teacher(
    known: str,
    teacher: ModelFile,
    student: ModelFile,
    test_rows: DatasetFile,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    before = agreement(opened(student, tmp_path), teacher, test_rows, tmp_path)
    made = taught(tmp_path / "a", teacher, student, request.getfixturevalue(known), SPEC)

    assert before < 0.3
    assert agreement(made.open(), teacher, test_rows, tmp_path) > 0.92
    assert [port.name for port in made.open().inputs] == ["pixels"]


def test_an_onnx_model_teaches_an_exported_program(
    student: ModelFile, unlabelled: Data, test_rows: DatasetFile, tmp_path: Path
) -> None:
    teacher = ModelFile(path=str(trained.write_onnx("mlp", tmp_path / "teacher.onnx")), format=ModelFormat.ONNX)
    made = taught(tmp_path / "a", teacher, student, unlabelled, SPEC)

    assert made.made.format is ModelFormat.PT2
    assert agreement(made.open(), teacher, test_rows, tmp_path) > 0.92


def test_an_exported_program_teaches_an_onnx_model(
    teacher: ModelFile, unlabelled: Data, test_rows: DatasetFile, tmp_path: Path
) -> None:
    student = write_onnx(Small(), tmp_path / "student.onnx")
    made = taught(tmp_path / "a", teacher, student, unlabelled, SPEC)

    assert made.made.format is ModelFormat.ONNX
    assert agreement(made.open(), teacher, test_rows, tmp_path) > 0.92


def test_a_student_may_see_smaller_images_under_the_same_input_name(tmp_path: Path) -> None:
    whole = nn.Sequential(nn.Flatten(), trained.trained("mlp"))
    teacher = write_network(whole, trained.example_input("cnn"), tmp_path / "teacher.pt2")
    torch.manual_seed(0)  # whatever tests ran before
    halved = nn.Sequential(nn.Flatten(), nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 10))
    student = write_network(halved, torch.zeros(2, 1, 4, 4), tmp_path / "student.pt2")
    pictures = _write_pictures(tmp_path / "digits.zip")
    made = taught(tmp_path / "a", teacher, student, Data(train=pictures), SPEC)

    assert [port.name for port in made.open().inputs] == [port.name for port in opened(teacher, tmp_path).inputs]
    assert agreement(opened(student, tmp_path), teacher, pictures, tmp_path) < 0.3
    assert agreement(made.open(), teacher, pictures, tmp_path) > 0.6


def _write_pictures(path: Path) -> DatasetFile:
    images, _, labels, _ = trained.digits_split()
    with zipfile.ZipFile(path, "w") as archive:
        for number, (image, label) in enumerate(zip(images[:300], labels, strict=False)):
            encoded = io.BytesIO()
            Image.fromarray((image.reshape(8, 8) * 255).astype(np.uint8)).save(encoded, "png")
            archive.writestr(f"{label}/{number}.png", encoded.getvalue())
    return DatasetFile(path=str(path), format=DatasetFormat.IMAGE_FOLDER)


def test_a_teacher_that_takes_a_fixed_number_of_rows_sets_the_pace(
    student: ModelFile, labelled: Data, test_rows: DatasetFile, teacher: ModelFile, tmp_path: Path
) -> None:
    torch.export.save(torch.export.export(trained.trained("mlp"), (torch.zeros(24, 64),)), tmp_path / "teacher.pt2")
    paced = ModelFile(path=str(tmp_path / "teacher.pt2"), format=ModelFormat.PT2)
    made = taught(tmp_path / "a", paced, student, labelled, SPEC)

    assert agreement(made.open(), teacher, test_rows, tmp_path) > 0.92


def test_the_pruned_model_learns_from_what_it_was_and_keeps_its_zeros(
    teacher: ModelFile, unlabelled: Data, test_rows: DatasetFile, tmp_path: Path
) -> None:
    prune = MagnitudePrune(sparsity=0.9)
    pruned = taught(tmp_path / "a", teacher, None, unlabelled, prune).open()
    made = taught(tmp_path / "b", teacher, None, unlabelled, prune, LogitsDistill(epochs=5, learning_rate=5e-3)).open()

    kept = state(made)
    for name, values in state(pruned).items():
        assert not kept[name][values == 0].any() or values.dim() == 1
    before = agreement(pruned, teacher, test_rows, tmp_path)
    assert agreement(made, teacher, test_rows, tmp_path) > max(0.9, before + 0.3)


def test_labels_that_do_not_count_do_no_harm(
    teacher: ModelFile, student: ModelFile, mislabelled: Data, test_rows: DatasetFile, tmp_path: Path
) -> None:
    ignoring = taught(tmp_path / "a", teacher, student, mislabelled, SPEC.model_copy(update={"teacher": 1.0}))
    believing = taught(tmp_path / "b", teacher, student, mislabelled, SPEC.model_copy(update={"teacher": 0.0}))

    assert accuracy(ignoring.open(), rows(test_rows)) > 0.9
    assert accuracy(believing.open(), rows(test_rows)) < 0.1


def test_a_higher_temperature_lets_the_student_follow_the_unlikely_classes_more_closely(
    teacher: ModelFile, student: ModelFile, unlabelled: Data, labelled: Data, test_rows: DatasetFile, tmp_path: Path
) -> None:
    data = Data(train=unlabelled.train, evaluation=labelled.evaluation)
    errors = []
    for temperature in (1.0, 10.0):
        spec = SPEC.model_copy(update={"temperature": temperature})
        made = taught(tmp_path / str(temperature), teacher, student, data, spec)
        errors.append(_error_of_centred_logits(made.open(), opened(teacher, tmp_path), test_rows))

    assert errors[1] < 0.8 * errors[0]


def _error_of_centred_logits(student: Model, teacher: Model, file: DatasetFile) -> float:
    left, right = (answers(model, file) for model in (student, teacher))
    left, right = (values - values.mean(axis=1, keepdims=True) for values in (left, right))
    return float(np.mean((left - right) ** 2) / right.var())


def test_a_teacher_that_ends_with_a_sigmoid_is_understood(
    student: ModelFile, labelled: Data, test_rows: DatasetFile, tmp_path: Path
) -> None:
    teacher = write_pt2(nn.Sequential(trained.trained("mlp"), nn.Sigmoid()), tmp_path / "teacher.pt2")
    made = taught(tmp_path / "a", teacher, student, labelled, SPEC.model_copy(update={"teacher": 1.0}))

    assert agreement(made.open(), teacher, test_rows, tmp_path) > 0.9


def test_a_student_that_answers_in_another_form_is_refused(teacher: ModelFile, labelled: Data, tmp_path: Path) -> None:
    student = write_pt2(Small(outputs=7), tmp_path / "student.pt2")
    with pytest.raises(DatasetMismatch, match="7") as refusal:
        taught(tmp_path / "a", teacher, student, labelled, SPEC)
    assert refusal.value.reason == "student_output"
    assert refusal.value.hint


def test_a_student_may_cut_the_text_into_tokens_of_its_own(tmp_path: Path) -> None:
    teacher = ModelFile(path=str(tiny_bert.write_directory(tmp_path)), format=ModelFormat.HUGGINGFACE)
    student = write_bert(tmp_path / "student", layers=1, width=32, seed=1, tokenizer=other_tokenizer())
    judged = DatasetFile(path=str(tiny_bert.write_lines(tmp_path)), format=DatasetFormat.JSONL)
    texts = (" ".join(tiny_bert.words(image)) for image in trained.digits_split()[0])
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    learnt = DatasetFile(path=str(tmp_path / "train.jsonl"), format=DatasetFormat.JSONL)
    spec = LogitsDistill(epochs=6, learning_rate=1e-2)
    made = taught(tmp_path / "a", teacher, student, Data(train=learnt, evaluation=judged), spec)

    assert agreement(opened(student, tmp_path), teacher, judged, tmp_path) < 0.3
    assert agreement(made.open(), teacher, judged, tmp_path) > 0.55
