from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests import trained
from tests.compression.training.attempts import Attempt, attempt, digits, untrained, write_network
from workers.compression.specs.errors import UnsupportedOperator
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.messages import Checkpoint, Data, ModelFile
from workers.compression.specs.steps.finetune import FullFinetune
from workers.compression.training import checkpoints
from workers.compression.training.objectives import Rows
from workers.compression.training.validation import Forward, Verdict

Tensors = dict[str, torch.Tensor]
FIXED = 16


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return untrained("mlp", tmp_path_factory.mktemp("model") / "model.pt2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return Data(train=digits("mlp", tmp_path_factory.mktemp("data") / "train.npz"))


@pytest.fixture(scope="module")
def cut_off(model: ModelFile, data: Data, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    spec = FullFinetune(max_steps=3, optimizer="adamw")
    return attempt(tmp_path_factory.mktemp("cut") / "a", model, (spec,), data, checkpoint_seconds=1e-9).checkpoints[0]


def _without_second_moments(state: Tensors) -> Tensors:
    return {name: values for name, values in state.items() if not name.endswith("0.weight/exp_avg_sq")}


def _flattened(state: Tensors) -> Tensors:
    return {name: values.reshape(-1) for name, values in state.items()}


def _renamed(state: Tensors) -> Tensors:
    return {f"elsewhere.{name}": values for name, values in state.items()}


def _emptied(_: Tensors) -> Tensors:
    return {}


@pytest.mark.parametrize("spoil", [_without_second_moments, _flattened, _renamed, _emptied])
def test_a_checkpoint_whose_optimizer_state_does_not_fit_is_not_used(
    spoil: Callable[[Tensors], Tensors], cut_off: Checkpoint, model: ModelFile, data: Data, tmp_path: Path
) -> None:
    saved = checkpoints.read(Path(cut_off.path))
    parts = {"weights": saved.weights, "best": saved.best, "optimizer": spoil(dict(saved.optimizer))}
    tensors = {f"{part}:{name}": values.clone() for part, found in parts.items() for name, values in found.items()}
    spoilt = tmp_path / "spoilt.safetensors"
    save_file(tensors, spoilt, {"standing": saved.standing.model_dump_json()})
    again = _after(cut_off.model_copy(update={"path": str(spoilt)}), "adamw", model, data, tmp_path)

    assert any("another optimizer" in warning and "starts over" in warning for warning in again.made.warnings)
    assert again.sha256 == _plain("adamw", model, data, tmp_path).sha256


def test_a_checkpoint_of_another_optimizer_is_not_used(
    cut_off: Checkpoint, model: ModelFile, data: Data, tmp_path: Path
) -> None:
    again = _after(cut_off, "sgd", model, data, tmp_path)

    assert any("another optimizer" in warning for warning in again.made.warnings)
    assert again.sha256 == _plain("sgd", model, data, tmp_path).sha256


def test_sgd_without_momentum_goes_on_although_it_has_no_state(model: ModelFile, data: Data, tmp_path: Path) -> None:
    spec = FullFinetune(max_steps=3, optimizer="sgd", momentum=0.0)
    whole = attempt(tmp_path / "whole", model, (spec,), data, checkpoint_seconds=1e-9)
    again = attempt(tmp_path / "again", model, (spec,), data, checkpoints=whole.checkpoints[:1])

    assert "going on after update" in again.logs
    assert again.sha256 == whole.sha256


def test_too_few_rows_for_one_fixed_batch_are_not_validated_on(tmp_path: Path) -> None:
    program = torch.export.export(trained.mlp().eval(), (torch.zeros(FIXED, 64),))
    torch.export.save(program, tmp_path / "model.pt2")
    model = ModelFile(path=str(tmp_path / "model.pt2"), format=ModelFormat.PT2)
    few = digits("mlp", tmp_path / "few.npz", lambda targets: np.arange(len(targets)) < 6 * FIXED)
    made = attempt(tmp_path / "a", model, (FullFinetune(epochs=2),), Data(train=few))

    assert any(f"do not fill a batch of {FIXED}" in warning for warning in made.made.warnings)
    assert {curve.name for curve in made.made.steps[0].curves} == {"train/loss", "train/learning_rate"}
    losses = list(made.curve("train/loss").values())
    assert len(losses) == 2 * 5
    assert losses[-1] < losses[0]


@pytest.fixture
def only_warning_of_nondeterminism() -> Iterator[None]:
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(mode=False)


@pytest.mark.usefixtures("only_warning_of_nondeterminism")
def test_determinism_is_left_as_strict_as_it_was(model: ModelFile, data: Data, tmp_path: Path) -> None:
    attempt(tmp_path / "a", model, (FullFinetune(max_steps=1),), data)

    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()


class Stepped(nn.Module):
    """Has a step function, whose derivative torch does not know, between its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 16)
        self.last = nn.Linear(16, 10)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.last(torch.heaviside(self.first(values), torch.ones(())))
        return made


def test_an_operator_without_a_derivative_is_refused_by_name(data: Data, tmp_path: Path) -> None:
    stepped = write_network(Stepped(), trained.example_input("mlp"), tmp_path / "model.pt2")
    with pytest.raises(UnsupportedOperator, match="heaviside") as refusal:
        attempt(tmp_path / "a", stepped, (FullFinetune(max_steps=1),), data)
    assert refusal.value.step == "recipe/0"


def test_a_network_that_refuses_a_batch_is_named_as_the_cause() -> None:
    shapes = ({0: torch.export.Dim("batch", min=2, max=8)},)
    program = torch.export.export(trained.mlp().eval(), (torch.zeros(2, 64),), dynamic_shapes=shapes)
    forward = Forward(program.module())

    assert forward(Rows((torch.zeros(8, 64),), 8)).outputs
    with pytest.raises(UnsupportedOperator, match="cannot be trained on these rows"):
        forward(Rows((torch.zeros(9, 64),), 9))


def test_weights_with_a_metric_are_better_than_any_without() -> None:
    undefined = Verdict(loss=0.1)
    poor, good = (Verdict(loss=5.0, metric="spearman", value=value) for value in (-0.9, 0.9))
    surer = Verdict(loss=4.0, metric="spearman", value=0.9)

    assert undefined.rank < poor.rank < good.rank < surer.rank
    assert Verdict(loss=0.2).rank < undefined.rank
    assert Verdict(loss=1.0, metric="rmse", value=3.0).rank < Verdict(loss=1.0, metric="rmse", value=2.0).rank


def _after(found: Checkpoint, optimizer: str, model: ModelFile, data: Data, folder: Path) -> Attempt:
    return attempt(folder / "again", model, (_spec(optimizer),), data, checkpoints=(found,))


def _plain(optimizer: str, model: ModelFile, data: Data, folder: Path) -> Attempt:
    return attempt(folder / "plain", model, (_spec(optimizer),), data)


def _spec(optimizer: str) -> FullFinetune:
    return FullFinetune.model_validate({"max_steps": 3, "optimizer": optimizer})
