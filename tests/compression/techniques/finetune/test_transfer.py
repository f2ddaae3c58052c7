"""Models learn classes that they were not made for, and nothing else of them changes than what was asked for."""

import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from transformers.models.auto.modeling_auto import AutoModelForSequenceClassification

from tests import trained
from tests.compression.judging import accuracy
from tests.compression.techniques.finetune.sentences import KINDS, ids, write_bert, write_sentences
from tests.compression.training.attempts import attempt, digits, opened, rows, state, untrained
from workers.compression.specs.errors import DatasetMismatch, InvalidSpec
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import Data, ModelFile
from workers.compression.specs.steps.finetune import FullFinetune, HeadFinetune

SENTENCES = ids(["p0 p1 p2 p3 p4 p0 p1 p2", "p6 p7 p8 p9 p10 p6 p7 p8", "p12 p13 p14 p15 p16 p12 p13 p14"])


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Names of weights that are new or hold other values."""
    return {name for name, values in after.items() if name not in before or not torch.equal(before[name], values)}


@pytest.mark.parametrize("written", [DatasetFormat.NPZ, DatasetFormat.JSONL])
def test_hidden_states_become_a_classifier_that_stock_transformers_opens(
    written: DatasetFormat, tmp_path: Path
) -> None:
    spec = FullFinetune(epochs=6, learning_rate=2e-3, batch_size=16)
    made = attempt(tmp_path / "a", write_bert(tmp_path), (spec,), write_sentences(tmp_path, written))

    with zipfile.ZipFile(made.artifact) as archive:
        archive.extractall(tmp_path / "made")
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "made").eval()
    with torch.no_grad():
        logits = found(**{name: torch.from_numpy(values) for name, values in SENTENCES.items()}).logits
    assert [found.config.id2label[index] for index in logits.argmax(1).tolist()] == list(KINDS)
    np.testing.assert_allclose(made.open().run(SENTENCES)[0], logits.numpy(), rtol=1e-4, atol=1e-5)
    assert "new last layer with 3 outputs" in made.made.steps[0].changed


def test_a_classifier_of_as_many_classes_keeps_its_last_layer_unless_told_otherwise(tmp_path: Path) -> None:
    model, data = write_bert(tmp_path, classes=3), write_sentences(tmp_path)
    first = state(opened(model, tmp_path))["classifier.weight"]
    still = {"max_steps": 1, "learning_rate": 1e-9, "weight_decay": 0.0, "validation": 0.0}

    for head, kept in (("auto", True), ("keep", True), ("replace", False)):
        made = attempt(tmp_path / head, model, (FullFinetune.model_validate({"head": head, **still}),), data)
        assert torch.allclose(state(made.open())["classifier.weight"], first, atol=1e-6) is kept


def test_a_kept_last_layer_too_narrow_for_the_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetMismatch, match="3 classes, the model scores 2"):
        attempt(
            tmp_path / "a", write_bert(tmp_path, classes=2), (FullFinetune(head="keep"),), write_sentences(tmp_path)
        )


def test_a_probe_leaves_a_transformers_body_to_the_last_bit(tmp_path: Path) -> None:
    model = write_bert(tmp_path)
    made = attempt(
        tmp_path / "a", model, (HeadFinetune(epochs=20, learning_rate=1e-2),), write_sentences(tmp_path)
    ).open()

    before = {f"bert.{name}": values for name, values in state(opened(model, tmp_path)).items()}
    assert changed(before, state(made)) == {
        *(f"classifier.{name}" for name in ("weight", "bias")),
        *(f"bert.pooler.dense.{name}" for name in ("weight", "bias")),
    }
    data = write_sentences(tmp_path).evaluation
    assert data is not None
    assert accuracy(made, rows(data)) > 0.75, "features of a body that never learnt still tell kinds apart"


@pytest.mark.parametrize("head", ["keep", "replace"])
def test_a_probe_leaves_a_torch_body_to_the_last_bit(head: str, tmp_path: Path) -> None:
    model = untrained("cnn", tmp_path / "cnn.pt2")
    spec = HeadFinetune.model_validate({"head": head, "epochs": 1})
    made = attempt(tmp_path / "a", model, (spec,), Data(train=digits("cnn", tmp_path / "train.npz")))

    # Batch norms' figures belong to the body as well.
    assert changed(state(opened(model, tmp_path)), state(made.open())) == {"10.weight", "10.bias"}


@pytest.mark.parametrize("globs", [("0.*",), ("0", "*.bias")], ids=" ".join)
def test_frozen_weights_stay_to_the_last_bit(globs: tuple[str, ...], tmp_path: Path) -> None:
    model = untrained("mlp", tmp_path / "mlp.pt2")
    data = Data(train=digits("mlp", tmp_path / "train.npz"))
    made = attempt(tmp_path / "a", model, (FullFinetune(freeze=globs, max_steps=5, validation=0.0),), data)

    learnt = {"2.weight", "4.weight", *(("2.bias", "4.bias") if globs == ("0.*",) else ())}
    assert changed(state(opened(model, tmp_path)), state(made.open())) == learnt


def test_frozen_blocks_of_a_transformer_stay_to_the_last_bit(tmp_path: Path) -> None:
    model = write_bert(tmp_path, classes=3)
    spec = FullFinetune(freeze=("bert.embeddings.*", "bert.encoder.layer.0.*"), max_steps=5, validation=0.0)
    made = attempt(tmp_path / "a", model, (spec,), write_sentences(tmp_path))

    after = state(made.open())
    learnt = changed(state(opened(model, tmp_path)), after)
    assert learnt == {name for name in after if "embeddings" not in name and ".layer.0." not in name}


def test_freezing_everything_is_refused(tmp_path: Path) -> None:
    data = Data(train=digits("mlp", tmp_path / "train.npz"))
    with pytest.raises(InvalidSpec, match="every weight is frozen") as refusal:
        attempt(tmp_path / "a", untrained("mlp", tmp_path / "mlp.pt2"), (FullFinetune(freeze=("*",)),), data)
    assert refusal.value.step == "recipe/0"


@pytest.mark.parametrize("head", ["auto", "replace"])
def test_an_onnx_network_learns_other_classes(head: str, tmp_path: Path) -> None:
    path = trained.write_onnx("mlp", tmp_path / "digits.onnx")
    few = digits("mlp", tmp_path / "few.npz", lambda labels: labels < 3)
    spec = FullFinetune.model_validate({"head": head, "epochs": 5, "learning_rate": 1e-2})
    model = ModelFile(path=str(path), format=ModelFormat.ONNX)
    made = attempt(tmp_path / "a", model, (spec,), Data(train=few))

    session = onnxruntime.InferenceSession(made.artifact)
    _, images, _, labels = trained.digits_split()
    chosen = labels < 3
    scores = session.run(None, {session.get_inputs()[0].name: images[chosen]})[0]
    assert scores.shape == (chosen.sum(), 3)
    assert np.mean(scores.argmax(1) == labels[chosen]) > 0.95
