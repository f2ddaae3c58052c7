"""Pruning while a network trains: how much goes, what stays, and what an interruption changes (nothing)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import trained
from tests.compression.judging import accuracy
from tests.compression.training.attempts import Attempt, attempt, digits, opened, rows, state
from workers.compression.context import Context
from workers.compression.families.weights import as_compressible
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import Data, DatasetFile, ModelFile
from workers.compression.specs.pruning_schedule import GradualSchedule, RewindSchedule
from workers.compression.specs.step import Step
from workers.compression.specs.steps.finetune import RecoverFinetune
from workers.compression.specs.steps.prune_weights import (
    FisherPrune,
    MagnitudePrune,
    ScheduledPrune,
    SparseGptPrune,
    TaylorPrune,
    WandaPrune,
)
from workers.compression.training.masking import GradualMasking
from workers.compression.training.pruning import prune_while_training
from workers.compression.training.schedule import Plan
from workers.compression.training.substitutes import Prunable

QUICK = RecoverFinetune(max_steps=12, validation=0.0)
SCHEDULES = [
    GradualSchedule(every=3, recovery=QUICK),
    RewindSchedule(rounds=3, recovery=QUICK.model_copy(update={"max_steps": 4})),
    RewindSchedule(rounds=3, to="values", recovery=QUICK.model_copy(update={"max_steps": 4})),
]
METHODS = (TaylorPrune, FisherPrune, WandaPrune)
WRITERS = {ModelFormat.ONNX: trained.write_onnx, ModelFormat.PT2: trained.write_pt2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("rows")
    test = DatasetFile(path=str(trained.write_npz("mlp", folder / "test.npz")), format=DatasetFormat.NPZ)
    return Data(train=digits("mlp", folder / "train.npz"), evaluation=test)


@pytest.fixture(scope="module", params=WRITERS, ids=str)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    path = tmp_path_factory.mktemp("model") / f"mlp.{request.param.value}"
    return ModelFile(path=str(WRITERS[request.param]("mlp", path)), format=request.param)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    path = tmp_path_factory.mktemp("program") / "mlp.pt2"
    return ModelFile(path=str(trained.write_pt2("mlp", path)), format=ModelFormat.PT2)


def matrices(made: Attempt) -> dict[str, torch.Tensor]:
    return {name: values for name, values in state(made.open()).items() if values.dim() > 1}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["gradual", "rate", "values"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_exactly_the_asked_share_goes(
    model: ModelFile, data: Data, schedule: GradualSchedule | RewindSchedule, scope: str, tmp_path: Path
) -> None:
    spec = MagnitudePrune.model_validate({"sparsity": 0.9, "scope": scope, "schedule": schedule})
    found = matrices(attempt(tmp_path / "a", model, (spec,), data))

    total = sum(values.numel() for values in found.values())
    if scope == "global":
        assert sum(int((values == 0).sum()) for values in found.values()) == round(0.9 * total)
    else:
        assert all(int((values == 0).sum()) == round(0.9 * values.numel()) for values in found.values())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_the_asked_share(
    method: type[ScheduledPrune], model: ModelFile, data: Data, tmp_path: Path
) -> None:
    spec = method.model_validate({"sparsity": 0.75, "samples": 16, "schedule": SCHEDULES[0]})
    found = matrices(attempt(tmp_path / "a", model, (spec,), data))

    total = sum(values.numel() for values in found.values())
    assert sum(int((values == 0).sum()) for values in found.values()) == round(0.75 * total)
    if method is WandaPrune:
        zeros = [(values == 0).sum(dim=1) for values in found.values()]
        assert all(int(counts.max() - counts.min()) <= 1 for counts in zeros)


@pytest.mark.parametrize("method", METHODS)
def test_one_choice_on_a_network_that_stands_still_is_the_choice_without_a_schedule(
    method: type[ScheduledPrune], program: ModelFile, data: Data, tmp_path: Path
) -> None:
    still = RecoverFinetune(max_steps=1, validation=0.0, learning_rate=1e-30, weight_decay=0.0)
    asked = {"sparsity": 0.5, "samples": 16}
    scheduled = method.model_validate(asked | {"schedule": RewindSchedule(rounds=1, recovery=still)})
    one = matrices(attempt(tmp_path / "a", program, (method.model_validate(asked),), data))
    other = matrices(attempt(tmp_path / "b", program, (scheduled,), data))

    assert all(torch.equal(one[name], other[name]) for name in one)


def test_every_choice_is_made_on_the_network_that_the_training_has_come_to(
    program: ModelFile, data: Data, tmp_path: Path
) -> None:
    learner = opened(program, tmp_path)
    model = as_compressible(learner)
    weights = model.weights()
    seen: list[list[np.ndarray]] = []
    masks: list[list[np.ndarray]] = [[np.ones(weight.shape, np.bool_) for weight in weights]]

    def choose(candidates: Sequence[np.ndarray], sparsity: float) -> list[np.ndarray]:
        held = [np.asarray(weight.from_matrix(model.matrix(weight))) for weight in weights]
        for values, mask, present in zip(candidates, masks[-1], held, strict=True):
            assert np.array_equal(np.where(mask, values, 0), present)
        seen.append(held)
        masks.append([np.abs(values) >= np.quantile(np.abs(values), sparsity) for values in candidates])
        return masks[-1]

    context = Context(scratch=tmp_path, train=rows(data.train))
    prune_while_training(learner, weights, 0.5, SCHEDULES[0], choose, context)
    assert len(seen) > 2
    assert all(not np.array_equal(first, last) for first, last in zip(seen[0], seen[-1], strict=True))


def test_layers_that_are_excluded_train_but_stay_dense(program: ModelFile, data: Data, tmp_path: Path) -> None:
    spec = MagnitudePrune(sparsity=0.9, exclude=("4*",), schedule=SCHEDULES[0])
    before = state(opened(program, tmp_path))
    after = state(attempt(tmp_path / "a", program, (spec,), data).open())

    assert not (after["4.weight"] == 0).any()
    assert not torch.equal(after["4.weight"], before["4.weight"])
    assert (after["0.weight"] == 0).any()


@pytest.mark.parametrize(
    "spec",
    [
        *(MagnitudePrune(sparsity=0.9, schedule=schedule) for schedule in SCHEDULES),
        TaylorPrune(sparsity=0.9, samples=16, schedule=SCHEDULES[0]),
    ],
    ids=["gradual", "rate", "values", "taylor"],
)
def test_an_interrupted_schedule_ends_with_the_same_bytes(
    program: ModelFile, data: Data, spec: Step, tmp_path: Path
) -> None:
    recipe = (spec,)
    whole = attempt(tmp_path / "whole", program, recipe, data, checkpoint_seconds=1e-9)

    assert whole.checkpoints[-1].finished
    for kept in (whole.checkpoints[number] for number in (0, 3, 4, 8, -1)):
        again = attempt(tmp_path / str(kept.update), program, recipe, data, checkpoints=(kept,))
        assert f"going on after update {kept.update}" in again.logs
        assert again.sha256 == whole.sha256


def test_values_rewind_to_those_of_the_uploaded_model(program: ModelFile, data: Data, tmp_path: Path) -> None:
    """The last round begins with the uploaded values; at a rate of next to nothing it also ends with them."""
    still = RecoverFinetune(max_steps=2, validation=0.0, learning_rate=1e-30, weight_decay=0.0)
    spec = MagnitudePrune(sparsity=0.9, schedule=RewindSchedule(rounds=2, to="values", recovery=still))
    before = state(opened(program, tmp_path))
    for name, values in state(attempt(tmp_path / "a", program, (spec,), data).open()).items():
        assert torch.equal(values, torch.where(values == 0, 0.0, before[name]))


def test_rewinding_the_rate_keeps_what_was_learnt(program: ModelFile, data: Data, tmp_path: Path) -> None:
    def trained_by(to: str) -> dict[str, torch.Tensor]:
        short = QUICK.model_copy(update={"max_steps": 4, "learning_rate": 1e-2})
        schedule = RewindSchedule.model_validate({"rounds": 2, "to": to, "recovery": short})
        return matrices(attempt(tmp_path / to, program, (MagnitudePrune(sparsity=0.5, schedule=schedule),), data))

    before = state(opened(program, tmp_path))
    moved = {
        to: sum(float((values - before[name])[values != 0].square().sum()) for name, values in trained_by(to).items())
        for to in ("rate", "values")
    }
    assert moved["rate"] > 1.2 * moved["values"]


def test_zeros_of_earlier_steps_never_come_back(program: ModelFile, data: Data, tmp_path: Path) -> None:
    first = MagnitudePrune(sparsity=0.6, scope="layer")
    schedule = GradualSchedule(every=1, recovery=QUICK.model_copy(update={"learning_rate": 0.05}))
    pruned = matrices(attempt(tmp_path / "a", program, (first,), data))
    both = matrices(attempt(tmp_path / "b", program, (first, MagnitudePrune(sparsity=0.7, schedule=schedule)), data))

    for name, values in pruned.items():
        assert not both[name][values == 0].any()


def test_a_gradual_mask_gives_back_what_became_important_again() -> None:
    weight = Prunable(torch.tensor([1.0, 2.0, 3.0, 4.0]), keeps_zeros=False)
    masking = GradualMasking([weight], _largest, 0.5, GradualSchedule(every=1, end=0.9, recovery=QUICK))
    plan = Plan(batches=10, accumulation=1, updates=10, warmup=0, shape="constant")
    optimizer = torch.optim.SGD(weight.parameters(), 0.1)
    for update in range(9):
        masking.before(update, plan, optimizer)
    assert weight().tolist() == [0.0, 0.0, 3.0, 4.0]

    with torch.no_grad():
        weight.values.copy_(torch.tensor([1.0, 9.0, 3.0, 4.0]))
    masking.before(masking.settled(plan), plan, optimizer)
    assert weight().tolist() == [0.0, 9.0, 0.0, 4.0]


def test_the_best_weights_are_chosen_among_those_of_the_final_sparsity(
    program: ModelFile, data: Data, tmp_path: Path
) -> None:
    """The trained network is better before it is pruned than it ever is afterwards."""
    schedule = GradualSchedule(end=0.8, recovery=RecoverFinetune(epochs=5, learning_rate=1e-6))
    made = attempt(tmp_path / "a", program, (MagnitudePrune(sparsity=0.95, schedule=schedule),), data)
    validated = made.curve("validation/loss")

    assert min(validated, key=lambda update: validated[update]) < 0.8 * max(validated)
    zeros = sum(int((values == 0).sum()) for values in matrices(made).values())
    assert zeros == round(0.95 * sum(values.numel() for values in matrices(made).values()))


def test_a_gradual_schedule_beats_pruning_at_once_with_as_much_training(
    program: ModelFile, data: Data, tmp_path: Path
) -> None:
    training = RecoverFinetune(epochs=12, validation=0.0, learning_rate=2e-3)
    at_once: tuple[Step, ...] = (MagnitudePrune(sparsity=0.985), training)
    gradual = MagnitudePrune(sparsity=0.985, schedule=GradualSchedule(every=5, recovery=training))
    assert data.evaluation is not None
    judged = rows(data.evaluation)
    one = accuracy(attempt(tmp_path / "a", program, at_once, data).open(), judged)
    other = accuracy(attempt(tmp_path / "b", program, (gradual,), data).open(), judged)

    assert other > one + 0.02


def test_a_schedule_needs_a_sparsity_a_model_that_trains_and_rows() -> None:
    with pytest.raises(ValueError, match="a schedule goes with sparsity alone"):
        MagnitudePrune.model_validate({"threshold": 0.1, "schedule": {"kind": "gradual"}})
    with pytest.raises(ValueError, match="leave fit out"):
        WandaPrune.model_validate({"sparsity": 0.5, "fit": True, "schedule": {"kind": "gradual"}})
    with pytest.raises(ValueError, match="schedule"):
        SparseGptPrune.model_validate({"sparsity": 0.5, "schedule": {"kind": "gradual"}})
    spec = MagnitudePrune(sparsity=0.5, schedule=SCHEDULES[0])
    assert spec.refusal(ModelFormat.SAFETENSORS) is not None
    assert spec.required() == ("train",)
    assert set(FisherPrune(sparsity=0.5, schedule=SCHEDULES[0]).required()) == {"calibration", "train"}


def _largest(candidates: Sequence[np.ndarray], sparsity: float) -> list[np.ndarray]:
    (values,) = candidates
    return [np.argsort(np.argsort(values, kind="stable")) >= round(sparsity * values.size)]
