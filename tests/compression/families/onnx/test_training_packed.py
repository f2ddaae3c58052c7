"""Files that expand themselves learn on: what is stored of them are the same codes and steps, with other values."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests import trained
from tests.compression.judging import accuracy
from tests.compression.training.attempts import Attempt, attempt, opened, rows
from workers.compression.families.onnx.packed import unpacked
from workers.compression.specs.errors import UnsupportedOperator
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import Data, DatasetFile, ModelFile
from workers.compression.specs.pruning_schedule import GradualSchedule
from workers.compression.specs.step import Step
from workers.compression.specs.steps.finetune import FullFinetune, RecoverFinetune
from workers.compression.specs.steps.prune_weights import MagnitudePrune
from workers.compression.specs.steps.quantize_weights import KmeansQuantize

SPARSE = MagnitudePrune(sparsity=0.97, storage="sparse")
PACKED: dict[str, tuple[Step, ...]] = {
    "sparse": (SPARSE,),
    "codes": (KmeansQuantize(bits=2),),
    "sparse codes": (MagnitudePrune(sparsity=0.97), KmeansQuantize(bits=3)),
}
RECOVER = RecoverFinetune(epochs=4.0, learning_rate=2e-3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("rows")
    train, test = (
        trained.write_npz("mlp", folder / f"{name}.npz", train=name == "train") for name in ("train", "test")
    )
    return Data(
        train=DatasetFile(path=str(train), format=DatasetFormat.NPZ),
        evaluation=DatasetFile(path=str(test), format=DatasetFormat.NPZ),
    )


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    path = tmp_path_factory.mktemp("model") / "mlp.onnx"
    return ModelFile(path=str(trained.write_onnx("mlp", path)), format=ModelFormat.ONNX)


def uploaded(made: Attempt) -> ModelFile:
    return ModelFile(path=str(made.artifact), format=ModelFormat.ONNX)


def weights_of(file: ModelFile, folder: Path) -> dict[str, np.ndarray]:
    network = opened(file, folder).trainable()
    return {
        network.names[name]: values.detach().numpy()
        for name, values in network.module.named_parameters()
        if values.dim() > 1
    }


@pytest.mark.parametrize("recipe", PACKED.values(), ids=PACKED)
@pytest.mark.parametrize("training", [RECOVER, FullFinetune(epochs=4.0, learning_rate=2e-3)], ids=["recover", "full"])
def test_a_packed_file_learns_and_stays_as_small(
    recipe: tuple[Step, ...], training: Step, dense: ModelFile, data: Data, tmp_path: Path
) -> None:
    packed = attempt(tmp_path / "packed", dense, recipe, Data())
    learnt = attempt(tmp_path / "learnt", uploaded(packed), [training], data)

    assert data.evaluation is not None
    judged = rows(data.evaluation)
    assert accuracy(learnt.open(), judged) > accuracy(packed.open(), judged)
    assert learnt.artifact.stat().st_size < 1.02 * packed.artifact.stat().st_size
    before, after = (weights_of(uploaded(one), tmp_path) for one in (packed, learnt))
    for name, values in before.items():
        assert np.array_equal(values == 0, after[name] == 0)
        if isinstance(recipe[-1], KmeansQuantize):
            assert len(np.unique(after[name])) == len(np.unique(values))
        assert not np.array_equal(values, after[name])


def test_an_interruption_changes_nothing(dense: ModelFile, data: Data, tmp_path: Path) -> None:
    packed = uploaded(attempt(tmp_path / "packed", dense, PACKED["sparse codes"], Data()))
    recipe = [RecoverFinetune(max_steps=6)]
    whole = attempt(tmp_path / "whole", packed, recipe, data, checkpoint_seconds=1e-9)
    again = attempt(tmp_path / "again", packed, recipe, data, checkpoints=(whole.checkpoints[2],))

    assert f"going on after update {whole.checkpoints[2].update}" in again.logs
    assert again.sha256 == whole.sha256


@pytest.mark.parametrize("schedule", [None, GradualSchedule(every=3, recovery=RecoverFinetune(max_steps=9))])
def test_a_file_without_zeros_is_pruned_further(
    schedule: GradualSchedule | None, dense: ModelFile, data: Data, tmp_path: Path
) -> None:
    packed = attempt(tmp_path / "packed", dense, [MagnitudePrune(sparsity=0.9, storage="sparse")], Data())
    further = attempt(tmp_path / "a", uploaded(packed), [MagnitudePrune(sparsity=0.96, schedule=schedule)], data)

    assert further.artifact.stat().st_size < 0.6 * packed.artifact.stat().st_size
    found = weights_of(uploaded(further), tmp_path).values()
    assert sum(int((values == 0).sum()) for values in found) == round(0.96 * sum(values.size for values in found))


def test_codes_with_scales_are_still_to_be_trained_before(dense: ModelFile, data: Data, tmp_path: Path) -> None:
    packed = uploaded(attempt(tmp_path / "packed", dense, [KmeansQuantize(bits=2, scale_group=16)], Data()))
    with pytest.raises(UnsupportedOperator, match="its codes cannot learn"):
        attempt(tmp_path / "a", packed, [RECOVER], data)


def test_what_reads_a_file_without_packed_weights_copies_nothing(dense: ModelFile) -> None:
    proto = onnx.load(dense.path)
    assert unpacked(proto).proto is proto
