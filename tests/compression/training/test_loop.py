from pathlib import Path

import numpy as np
import pytest
import torch

from tests import trained
from tests.compression.judging import accuracy
from tests.compression.training.attempts import Attempt, attempt, digits, opened, rows, state, untrained
from workers.compression.specs.errors import NumericalFailure
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import Checkpoint, Data, DatasetFile, ModelFile
from workers.compression.specs.steps.finetune import FullFinetune, RecoverFinetune
from workers.compression.specs.steps.prune_weights import MagnitudePrune

Job = tuple[ModelFile, Data]


@pytest.fixture(scope="module")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return _job("mlp", tmp_path_factory)


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return _job("cnn", tmp_path_factory)


def _job(kind: str, folders: pytest.TempPathFactory) -> Job:
    folder = folders.mktemp(kind)
    test = DatasetFile(path=str(trained.write_npz(kind, folder / "test.npz")), format=DatasetFormat.NPZ)
    return untrained(kind, folder / "model.pt2"), Data(train=digits(kind, folder / "train.npz"), evaluation=test)


def ran(job: Job, folder: Path, *recipe: FullFinetune | RecoverFinetune | MagnitudePrune, **request: object) -> Attempt:
    return attempt(folder, job[0], recipe, job[1], **request)


def test_untrained_weights_learn_digits(cnn: Job, tmp_path: Path) -> None:
    made = ran(cnn, tmp_path / "a", FullFinetune(epochs=4))

    assert cnn[1].evaluation is not None
    assert accuracy(made.open(), rows(cnn[1].evaluation)) > 0.95


def test_divergence_names_the_update_and_the_step(mlp: Job, tmp_path: Path) -> None:
    wild = FullFinetune(optimizer="sgd", learning_rate=10.0, momentum=0.99, max_gradient_norm=0, warmup=0.0)
    with pytest.raises(NumericalFailure, match=r"in update \d+ of") as failure:
        ran(mlp, tmp_path / "a", FullFinetune(max_steps=1), wild)
    assert failure.value.step == "recipe/1"
    assert failure.value.hint


def test_the_best_weights_are_kept_and_patience_ends_early(mlp: Job, tmp_path: Path) -> None:
    spec = FullFinetune(epochs=30, learning_rate=0.05, optimizer="sgd", patience=2, schedule="constant")
    made = ran(mlp, tmp_path / "a", spec)
    validated = made.curve("validation/accuracy")

    best = max(validated.values())
    assert max(validated) < 30 * 31
    assert f"accuracy {best:.4g} on the validation rows" in made.made.steps[0].changed
    assert mlp[1].train is not None
    _, aside = rows(mlp[1].train).parts(spec.validation)
    assert accuracy(made.open(), aside) == pytest.approx(best)


def test_accumulated_batches_are_one_large_batch(mlp: Job, tmp_path: Path) -> None:
    common = {"max_steps": 5, "validation": 0.0}
    one = ran(mlp, tmp_path / "a", FullFinetune(batch_size=32, **common))
    two = ran(mlp, tmp_path / "b", FullFinetune(batch_size=16, accumulation=2, **common))

    others = state(two.open())
    for name, values in state(one.open()).items():
        torch.testing.assert_close(values, others[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_weights_stay_float32_in_every_precision(mlp: Job, precision: str, tmp_path: Path) -> None:
    made = ran(mlp, tmp_path / "a", FullFinetune.model_validate({"precision": precision, "epochs": 3}))

    assert {values.dtype for values in state(made.open()).values()} == {torch.float32}
    assert mlp[1].evaluation is not None
    assert accuracy(made.open(), rows(mlp[1].evaluation)) > 0.8


def test_the_process_is_left_as_it_was(mlp: Job, tmp_path: Path) -> None:
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    legacy = np.random.get_state()[1]
    ran(mlp, tmp_path / "a", FullFinetune(max_steps=2), threads=2)

    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random)
    assert np.array_equal(np.random.get_state()[1], legacy)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("spec", [{"optimizer": "adamw"}, {"optimizer": "sgd", "accumulation": 3}], ids=str)
def test_an_interrupted_training_ends_with_the_same_bytes(cnn: Job, spec: dict[str, object], tmp_path: Path) -> None:
    recipe = (FullFinetune.model_validate({"epochs": 1, **spec}), FullFinetune(max_steps=4))
    whole = ran(cnn, tmp_path / "whole", *recipe, checkpoint_seconds=1e-9)
    first = [found for found in whole.checkpoints if found.step == "recipe/0"]
    second = [found for found in whole.checkpoints if found.step == "recipe/1"]
    cuts = [(first[0],), (first[len(first) // 2],), (first[-2],), (first[-1],), (first[-1], second[1])]

    assert first[-1].finished
    for number, kept in enumerate(cuts):
        again = ran(cnn, tmp_path / str(number), *recipe, checkpoints=kept)
        assert f"going on after update {kept[0].update}" in again.logs
        assert again.sha256 == whole.sha256


def test_a_checkpoint_that_does_not_fit_is_not_used(cnn: Job, mlp: Job, tmp_path: Path) -> None:
    spec = FullFinetune(max_steps=3)
    plain = ran(mlp, tmp_path / "plain", spec)
    foreign = ran(cnn, tmp_path / "cnn", spec, checkpoint_seconds=1e-9).checkpoints
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"\x80\x04garbage" * 100)
    broken = Checkpoint(step="recipe/0", path=str(garbage), update=2)

    for number, found in enumerate((foreign[0], foreign[-1], broken)):
        again = ran(mlp, tmp_path / str(number), spec, checkpoints=(found,))
        assert any("starts over" in warning for warning in again.made.warnings)
        assert again.sha256 == plain.sha256


def test_layers_join_one_by_one_also_where_zeros_are_kept(mlp: Job, tmp_path: Path) -> None:
    before = ran(mlp, tmp_path / "a", MagnitudePrune(sparsity=0.5))
    spec = FullFinetune(epochs=1, unfreeze_epochs=2.0, validation=0.0)
    after = state(ran(mlp, tmp_path / "b", MagnitudePrune(sparsity=0.5), spec).open())

    changed = {name for name, values in state(before.open()).items() if not torch.equal(values, after[name])}
    assert changed == {"4.weight", "4.bias"}


def test_recovery_keeps_every_zero_and_regains_accuracy(mlp: Job, tmp_path: Path) -> None:
    whole = ModelFile(path=str(trained.write_pt2("mlp", tmp_path / "trained.pt2")), format=ModelFormat.PT2)
    job, prune = (whole, mlp[1]), MagnitudePrune(sparsity=0.9)
    pruned = ran(job, tmp_path / "a", prune).open()
    recovered = ran(job, tmp_path / "b", prune, RecoverFinetune(epochs=4)).open()

    kept = state(recovered)
    for name, values in state(pruned).items():
        assert not torch.equal(kept[name], values)
        assert values.dim() == 1 or not kept[name][values == 0].any()
    assert mlp[1].evaluation is not None
    judged = rows(mlp[1].evaluation)
    assert accuracy(recovered, judged) > max(0.9, accuracy(pruned, judged) + 0.05)


def test_the_model_itself_is_not_changed_by_its_trainable_copy(mlp: Job, tmp_path: Path) -> None:
    model = opened(mlp[0], tmp_path)
    copy = model.trainable()
    with torch.no_grad():
        next(copy.module.parameters()).zero_()

    assert all(values.any() for values in state(model).values())
