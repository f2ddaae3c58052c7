"""A transformer with dropout that was cut off in training ends with the bytes of one that was not."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from tests.compression.techniques.finetune.sentences import write_bert, write_sentences
from tests.compression.training.attempts import Attempt, attempt
from workers.compression.specs.steps.finetune import FullFinetune, HeadFinetune, LoraFinetune
from workers.compression.specs.training import TrainingStep

COMMON: dict[str, Any] = {"epochs": 2, "learning_rate": 2e-3, "batch_size": 16}
SPECS = {
    "full": FullFinetune.model_validate(COMMON),
    "full-by-layers": FullFinetune.model_validate(COMMON | {"unfreeze_epochs": 0.5, "layer_decay": 0.8}),
    "head": HeadFinetune.model_validate(COMMON),
    "lora": LoraFinetune.model_validate(COMMON | {"dropout": 0.1, "merge": False}),
}


@pytest.mark.parametrize("original", [None, 3], ids=["body", "classifier"])
@pytest.mark.parametrize("name", SPECS)
def test_an_interrupted_training_ends_with_the_same_bytes(name: str, original: int | None, tmp_path: Path) -> None:
    model, data = write_bert(tmp_path, original), write_sentences(tmp_path)
    recipe: tuple[TrainingStep, ...] = (SPECS[name],)
    whole = attempt(tmp_path / "whole", model, recipe, data, checkpoint_seconds=1e-9)
    found = whole.checkpoints

    assert found[-1].finished
    for number, cut in enumerate((found[0], found[len(found) // 2], found[-1])):
        again = attempt(tmp_path / str(number), model, recipe, data, checkpoints=(cut,))
        assert f"going on after update {cut.update}" in again.logs
        assert again.sha256 == whole.sha256
        assert _extras(again) == _extras(whole)


def test_dropout_depends_on_the_seed_alone(tmp_path: Path) -> None:
    model, data = write_bert(tmp_path, classes=3), write_sentences(tmp_path)
    made = [attempt(tmp_path / str(n), model, (SPECS["full"],), data, seed=seed) for n, seed in enumerate((1, 1, 2))]

    assert made[0].sha256 == made[1].sha256 != made[2].sha256


@pytest.mark.parametrize("name", ["full", "lora"])
def test_a_checkpoint_is_a_safetensors_file_and_nothing_else(name: str, tmp_path: Path) -> None:
    made = attempt(
        tmp_path / "a", write_bert(tmp_path, 3), (SPECS[name],), write_sentences(tmp_path), checkpoint_seconds=1e-9
    )

    paths = [Path(found.path) for found in made.checkpoints]
    assert sorted(paths) == sorted((made.folder / "out" / "checkpoints").iterdir()), "nothing unfinished is left"
    for path in paths:
        with safe_open(path, "pt") as file:
            assert {key.partition(":")[0] for key in file.keys()} <= {"weights", "best", "optimizer"}  # noqa: SIM118
            assert set(file.metadata()) == {"standing"}
            assert json.loads(file.metadata()["standing"])["update"] >= 1
        content = path.read_bytes()
        header = int.from_bytes(content[:8], "little")
        ends = [entry["data_offsets"][1] for key, entry in json.loads(content[8 : 8 + header]).items() if key[0] != "_"]
        assert len(content) == 8 + header + max(ends)


def _extras(made: Attempt) -> list[str]:
    return [hashlib.sha256((made.folder / extra.path).read_bytes()).hexdigest() for extra in made.made.extras]
