"""Low-rank updates: where they go, what they leave alone, and that merged and kept apart they are the same."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from app.jobs.recipe_checks import check_order, find_conflicts
from tests.compression.techniques.finetune.sentences import ids, write_bert, write_llama, write_sentences
from tests.compression.training.attempts import Attempt, attempt, digits, opened, state, untrained
from workers.compression.specs.errors import IncompatibleSteps, UnsupportedTechnique
from workers.compression.specs.messages import Data, ModelFile
from workers.compression.specs.steps.finetune import FullFinetune, LoraFinetune
from workers.compression.specs.steps.prune_weights import MagnitudePrune

SENTENCES = ids(["p0 p1 p2 p3 p4 p0 p1 p2", "p6 p7 p12 p9 p10 p16 p7 p8"])
HEAD = {f"{layer}.{kind}" for layer in ("bert.pooler.dense", "classifier") for kind in ("weight", "bias")}
QUERIES = {f"bert.encoder.layer.{block}.attention.self.query.weight" for block in range(2)}

# peft asks transformers for a property by the name it had before.
old_name = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def lora(**fields: Any) -> LoraFinetune:
    return LoraFinetune.model_validate({"rank": 4, "epochs": 2, "merge": False, "learning_rate": 5e-3} | fields)


def pasted(made: Attempt, folder: Path, monkeypatch: pytest.MonkeyPatch, **names: Any) -> dict[str, Any]:
    """What the snippet that comes with the adapter defines, run beside the adapter and the unzipped original."""
    monkeypatch.chdir(folder)
    (extra,) = made.made.extras
    (folder / extra.name).write_bytes((made.folder / extra.path).read_bytes())
    scope = dict(names)
    exec(extra.load, scope)
    return scope


@old_name
@pytest.mark.parametrize("original", [None, 2, 3, 5], ids=["body", "2-classes", "3-classes", "5-classes"])
@pytest.mark.parametrize("kinds", [("dark", "dim", "light"), ("dark", "light")], ids=len)
def test_the_adapter_on_the_original_is_the_merged_model(
    original: int | None, kinds: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = write_bert(tmp_path, original), write_sentences(tmp_path, kinds=kinds)
    made = attempt(tmp_path / "a", model, (lora(),), data)
    (extra,) = made.made.extras
    assert (extra.kind, extra.format, extra.name) == ("adapter", "peft", "adapter.zip")

    adapted = pasted(made, tmp_path, monkeypatch)["model"]

    with torch.no_grad():
        logits = adapted(**{name: torch.from_numpy(values) for name, values in SENTENCES.items()}).logits
    merged = made.open().run(SENTENCES)[0]
    assert merged.shape == (2, len(kinds))
    np.testing.assert_allclose(logits.numpy(), merged, rtol=1e-5, atol=1e-5)


@old_name
def test_an_adapter_of_a_decoder_brings_what_padding_looks_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = attempt(tmp_path / "a", write_llama(tmp_path), (lora(),), write_sentences(tmp_path))
    feeds = {name: SENTENCES[name].copy() for name in ("input_ids", "attention_mask")}
    for values, filler in zip(feeds.values(), (1, 0), strict=True):
        values[1, -3:] = filler

    adapted = pasted(made, tmp_path, monkeypatch)["model"]

    with torch.no_grad():
        logits = adapted(**{name: torch.from_numpy(values) for name, values in feeds.items()}).logits
    np.testing.assert_allclose(logits.numpy(), made.open().run(feeds)[0], rtol=1e-5, atol=1e-5)


def test_only_chosen_layers_and_the_head_change(tmp_path: Path) -> None:
    model, data = write_bert(tmp_path, classes=3), write_sentences(tmp_path)
    made = attempt(tmp_path / "a", model, (lora(include=("*.query", "*.key.weight"), exclude=("*.key",)),), data)

    before, after = state(opened(model, tmp_path)), state(made.open())
    assert before.keys() == after.keys()
    assert {name for name, values in after.items() if not torch.equal(values, before[name])} == HEAD | QUERIES


@pytest.mark.parametrize("rank", [1, 6])
def test_an_adapter_has_the_rank_and_the_layers_that_were_asked_for(rank: int, tmp_path: Path) -> None:
    model, data = write_bert(tmp_path, classes=3), write_sentences(tmp_path)
    made = attempt(tmp_path / "a", model, (lora(rank=rank, alpha=3, include=("*.query",), epochs=0.3),), data)
    with zipfile.ZipFile(made.folder / made.made.extras[0].path) as archive:
        archive.extractall(tmp_path / "adapter")

    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (rank, 3)
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    updates = {name: values.shape for name, values in tensors.items() if ".lora_" in name}
    assert len(updates) == 2 * len(QUERIES)
    assert set(updates.values()) == {(rank, 32), (32, rank)}
    before, after = state(opened(model, tmp_path)), state(made.open())
    for name in QUERIES:
        singular = torch.linalg.svdvals(after[name] - before[name])
        assert singular[rank:].max() < 1e-5 * max(1.0, float(singular[0]))


def test_a_torch_adapter_on_the_original_is_the_merged_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = untrained("cnn", tmp_path / "cnn.pt2")
    data = Data(train=digits("cnn", tmp_path / "train.npz"))
    made = attempt(tmp_path / "a", model, (lora(epochs=1, exclude=("0",)),), data)
    network = torch.export.load(model.path).module()

    pasted(made, tmp_path, monkeypatch, model=network)

    before, after, adapted = state(opened(model, tmp_path)), state(made.open()), network.state_dict()
    changed = {name for name, values in after.items() if not torch.equal(values, before[name])}
    assert changed == {"3.weight", "7.weight", "10.weight", "10.bias"}
    for name, values in after.items():
        torch.testing.assert_close(adapted[name], values, rtol=1e-5, atol=1e-5)
    (extra,) = made.made.extras
    assert (extra.kind, extra.format) == ("adapter", "safetensors")
    factors = load_file(made.folder / extra.path)
    assert factors["3.weight.lora_down"].shape == (4, 32 * 9)
    assert factors["3.weight.lora_up"].shape == (64, 4)


@pytest.mark.parametrize("kind", ["bert", "pt2"])
def test_a_merged_update_is_no_file_of_its_own(kind: str, tmp_path: Path) -> None:
    model, data = _job(kind, tmp_path)
    apart = attempt(tmp_path / "a", model, (lora(),), data)
    merged = attempt(tmp_path / "b", model, (lora(merge=True),), data)

    assert len(apart.made.extras) == 1
    assert merged.made.extras == ()
    assert merged.sha256 == apart.sha256, "the model itself is the same either way"


@pytest.mark.parametrize("kind", ["bert", "pt2"])
@pytest.mark.parametrize("fields", [{"include": ("nothing*",)}, {"exclude": ("*",)}, {"rank": 1024}], ids=str)
def test_updates_of_no_layer_are_refused(fields: dict[str, Any], kind: str, tmp_path: Path) -> None:
    model, data = _job(kind, tmp_path)
    with pytest.raises(UnsupportedTechnique, match="linear layers and convolutions before the last layer") as refusal:
        attempt(tmp_path / "a", model, (lora(**fields),), data)
    assert refusal.value.reason == "no_layer"
    assert refusal.value.hint
    assert refusal.value.step == "recipe/0"


def test_updates_after_pruning_would_fill_the_zeros_and_are_refused_at_submit() -> None:
    recipe = (MagnitudePrune(), lora())
    assert [found.steps for found in find_conflicts(recipe)] == [("prune.magnitude", "finetune.lora")]
    with pytest.raises(IncompatibleSteps) as refused:
        check_order(recipe)
    assert refused.value.pointer == "/recipe/1"
    check_order((lora(), MagnitudePrune()))
    check_order((MagnitudePrune(), FullFinetune()))


def _job(kind: str, folder: Path) -> tuple[ModelFile, Data]:
    if kind == "bert":
        return write_bert(folder, classes=3), write_sentences(folder)
    return untrained("mlp", folder / "mlp.pt2"), Data(train=digits("mlp", folder / "train.npz"))
