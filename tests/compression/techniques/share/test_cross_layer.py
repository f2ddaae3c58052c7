"""Blocks of a trained network come to share matrices: which ones, one copy on disk, and what training makes of it."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from tests import trained
from tests.compression.judging import accuracy
from tests.compression.training.attempts import attempt, rows, write_network
from workers.compression.families.weights import Weight
from workers.compression.specs.errors import (
    ConstraintInfeasible,
    DatasetMismatch,
    NothingCompressed,
    UnsupportedTechnique,
)
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import Data, DatasetFile, ModelFile
from workers.compression.specs.steps.finetune import RecoverFinetune
from workers.compression.specs.steps.share import CrossLayerShare
from workers.compression.techniques.share.cross_layer.choosing import choose

WIDTH, BLOCKS = 48, 4
RECOVERY = RecoverFinetune(epochs=3.0, learning_rate=2e-3)


class Block(nn.Module):
    """A residual perceptron with a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.first = nn.Linear(WIDTH, 2 * WIDTH)
        self.second = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values + self.second(torch.relu(self.first(self.norm(values))))


class Residual(nn.Module):
    """Alike blocks between an embedding of the digits and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(64, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        values = self.embed(values)
        for block in self.blocks:
            values = block(values)
        return self.head(values)


@cache
def residual() -> Residual:
    """Trained on the digits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Residual()
        images, _, labels, _ = trained.digits_split()
        optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(torch.from_numpy(images)), torch.from_numpy(labels).long()).backward()
            optimizer.step()
    return network.eval()


def write_onnx(path: Path) -> ModelFile:
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(
        residual(), (torch.zeros(2, 64),), dynamo=True, input_names=["input"], dynamic_shapes=shapes, verbose=False
    )
    onnx.save(program.model_proto, path)
    return ModelFile(path=str(path), format=ModelFormat.ONNX)


WRITERS: dict[ModelFormat, Callable[[Path], ModelFile]] = {
    ModelFormat.ONNX: write_onnx,
    ModelFormat.PT2: lambda path: write_network(residual(), torch.zeros(2, 64), path),
}


@pytest.fixture(scope="module", params=WRITERS, ids=str)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return WRITERS[request.param](tmp_path_factory.mktemp("model") / f"residual.{request.param.value}")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return WRITERS[ModelFormat.PT2](tmp_path_factory.mktemp("program") / "residual.pt2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("rows")
    train, test = (
        DatasetFile(
            path=str(trained.write_npz("mlp", folder / f"{name}.npz", train=name == "train")), format=DatasetFormat.NPZ
        )
        for name in ("train", "test")
    )
    return Data(train=train, evaluation=test)


def test_one_copy_is_stored_that_answers_nearly_as_well_as_all_did(
    model: ModelFile, data: Data, tmp_path: Path
) -> None:
    made = attempt(tmp_path / "a", model, [CrossLayerShare(copies=1, recovery=RECOVERY)], data)
    matrices = 2 * 2 * WIDTH * WIDTH * 4
    saved = Path(model.path).stat().st_size - made.artifact.stat().st_size

    assert saved > 0.9 * (BLOCKS - 1) * matrices
    assert "1 of 4 alike blocks keep matrices" in made.made.steps[0].changed
    assert accuracy(made.open(), rows(data.evaluation)) > 0.95
    if model.format is ModelFormat.ONNX:
        stored = [tensor.dims for tensor in onnx.load(made.artifact).graph.initializer]
        assert stored.count([2 * WIDTH, WIDTH]) + stored.count([WIDTH, 2 * WIDTH]) == 2
        session = onnxruntime.InferenceSession(made.artifact, providers=["CPUExecutionProvider"])
        answers = session.run(None, {"input": trained.digits_split()[1]})[0].argmax(1)
        assert np.mean(answers == trained.digits_split()[3]) > 0.95
    else:
        state = torch.export.load(made.artifact).state_dict
        for leaf in ("first.weight", "second.weight"):
            assert len({state[f"blocks.{number}.{leaf}"].data_ptr() for number in range(BLOCKS)}) == 1
        assert len({tuple(state[f"blocks.{number}.first.bias"].tolist()) for number in range(BLOCKS)}) == BLOCKS


def test_training_regains_what_sharing_alone_loses(program: ModelFile, data: Data, tmp_path: Path) -> None:
    still = RecoverFinetune(max_steps=1, learning_rate=1e-30, weight_decay=0.0, validation=0.0)
    judged = [
        accuracy(
            attempt(tmp_path / name, program, [CrossLayerShare(copies=1, recovery=recovery)], data).open(),
            rows(data.evaluation),
        )
        for name, recovery in (("still", still), ("trained", RECOVERY))
    ]
    assert judged[0] < judged[1] - 0.1


def test_the_same_seed_and_an_interruption_give_the_same_bytes(program: ModelFile, data: Data, tmp_path: Path) -> None:
    recipe = [CrossLayerShare(copies=2, samples=16, recovery=RecoverFinetune(max_steps=6))]
    whole = attempt(tmp_path / "whole", program, recipe, data, checkpoint_seconds=1e-9)
    again = attempt(tmp_path / "again", program, recipe, data, checkpoints=(whole.checkpoints[2],))

    assert f"going on after update {whole.checkpoints[2].update}" in again.logs
    assert again.sha256 == whole.sha256


def test_a_budget_of_bytes_is_met_with_as_many_copies_as_fit(program: ModelFile, data: Data, tmp_path: Path) -> None:
    block, rest = 2 * 2 * WIDTH * WIDTH * 4, (64 * WIDTH + 10 * WIDTH) * 4
    recovery = RecoverFinetune(max_steps=1)

    def shared(max_bytes: int, name: str) -> str:
        spec = CrossLayerShare(max_bytes=max_bytes, samples=16, recovery=recovery)
        return attempt(tmp_path / name, program, [spec], data).made.steps[0].changed

    assert "3 of 4 alike blocks keep" in shared(3 * block + rest, "a")
    assert "2 of 4 alike blocks keep" in shared(3 * block + rest - 1, "b")
    with pytest.raises(ConstraintInfeasible, match="still take"):
        shared(block + rest - 1, "c")
    with pytest.raises(NothingCompressed):
        shared(4 * block + rest, "d")


def test_the_blocks_that_serve_others_best_keep_their_matrices() -> None:
    """0 and 1 are near each other, 2 and 3 too; of each pair the one stays that serves the other better."""
    blocks = tuple(
        (Weight(f"{number}.weight", f"{number}", (32, 32), "float32", "linear", (0, 1)),) for number in range(4)
    )
    costs = np.array([[0.0, 0.1, 5, 5], [0.3, 0.0, 5, 5], [5, 5, 0.0, 0.4], [5, 5, 0.2, 0.0]])
    spec = CrossLayerShare(copies=2)

    assert choose([blocks], [costs], spec, 0) == {blocks[1]: blocks[0], blocks[2]: blocks[3]}


def test_what_is_excluded_stays_of_each_block_its_own(program: ModelFile, data: Data, tmp_path: Path) -> None:
    spec = CrossLayerShare(copies=1, samples=16, exclude=("*second*",), recovery=RecoverFinetune(max_steps=2))
    state = torch.export.load(attempt(tmp_path / "a", program, [spec], data).artifact).state_dict

    assert len({state[f"blocks.{number}.first.weight"].data_ptr() for number in range(BLOCKS)}) == 1
    assert len({state[f"blocks.{number}.second.weight"].data_ptr() for number in range(BLOCKS)}) == BLOCKS


def test_it_is_refused_without_rows_and_where_no_blocks_are_alike(
    program: ModelFile, data: Data, tmp_path: Path
) -> None:
    assert CrossLayerShare().required() == ("train",)
    with pytest.raises(DatasetMismatch, match="no rows to train on"):
        attempt(tmp_path / "a", program, [CrossLayerShare()], Data())
    mlp = ModelFile(path=str(trained.write_pt2("mlp", tmp_path / "mlp.pt2")), format=ModelFormat.PT2)
    with pytest.raises(UnsupportedTechnique, match="No two of the selected layers"):
        attempt(tmp_path / "b", mlp, [CrossLayerShare()], data)
    with pytest.raises(ValueError, match="not both"):
        CrossLayerShare(copies=1, max_bytes=1)
