"""What compression made of a weight outlives any training after it, exactly."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests import trained
from tests.compression.techniques.finetune.sentences import write_bert, write_sentences
from tests.compression.training.attempts import attempt, digits, state, write_network
from workers.compression.specs.messages import Data, ModelFile
from workers.compression.specs.steps.finetune import FullFinetune, RecoverFinetune
from workers.compression.specs.steps.prune_weights import MagnitudePrune
from workers.compression.training.substitutes import LowRank, Masked, Shared, keeping_structure

CODEBOOK = 16
QUICK = RecoverFinetune(epochs=1, learning_rate=1e-3, validation=0.0)
shapes = st.one_of(
    st.tuples(st.integers(1, 80), st.integers(1, 80)),
    st.tuples(st.integers(1, 24), st.integers(1, 24), st.integers(1, 3), st.integers(1, 3)),
)
seeds = st.integers(0, 1 << 30)


def clustered(weight: torch.Tensor, values: int = CODEBOOK) -> torch.Tensor:
    """The weight with each element rounded to the nearest of evenly spread quantiles of it."""
    book = weight.flatten().quantile(torch.linspace(0.02, 0.98, values))
    return book[(weight.flatten()[:, None] - book).abs().argmin(1)].reshape(weight.shape)


@pytest.fixture
def train(tmp_path: Path) -> Data:
    return Data(train=digits("mlp", tmp_path / "train.npz"))


@pytest.fixture
def shared_mlp(tmp_path: Path) -> ModelFile:
    """The trained perceptron, its second weight of 128x256 from a codebook of 16, and a bias of zeros."""
    network = trained.mlp()
    network.load_state_dict(trained.trained("mlp").state_dict())
    with torch.no_grad():
        weight = network.get_parameter("2.weight")
        weight.copy_(clustered(weight))
        network.get_parameter("2.bias").zero_()
    return write_network(network, trained.example_input("mlp"), tmp_path / "shared.pt2")


def stored(path: Path) -> dict[str, torch.Tensor]:
    return dict(torch.export.load(path).module().state_dict())


def assert_same_groups(before: torch.Tensor, after: torch.Tensor) -> None:
    """Elements that were equal are equal, and the codebook has not grown."""
    _, codes = before.unique(return_inverse=True)
    for code in codes.unique():
        assert len(after[codes == code].unique()) == 1
    assert len(after.unique()) <= len(before.unique())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_codebook_learns_and_who_has_which_value_stays(
    optimizer: str, shared_mlp: ModelFile, train: Data, tmp_path: Path
) -> None:
    before = stored(Path(shared_mlp.path))
    spec = RecoverFinetune.model_validate({**QUICK.model_dump(), "optimizer": optimizer, "weight_decay": 0.1})
    after = stored(attempt(tmp_path / "a", shared_mlp, (spec,), train).artifact)

    assert len(before["2.weight"].unique()) == CODEBOOK
    assert not torch.equal(before["2.weight"], after["2.weight"])
    assert_same_groups(before["2.weight"], after["2.weight"])
    assert len(after["0.weight"].unique()) > 256, "a dense weight is not bound to anything"


def test_a_bias_of_zeros_learns(shared_mlp: ModelFile, train: Data, tmp_path: Path) -> None:
    after = stored(attempt(tmp_path / "a", shared_mlp, (QUICK,), train).artifact)

    assert not stored(Path(shared_mlp.path))["2.bias"].any()
    assert after["2.bias"].count_nonzero() > 64, "only units that answer no row have no gradient"


def test_pruned_codebooks_keep_zeros_and_values(shared_mlp: ModelFile, train: Data, tmp_path: Path) -> None:
    prune = MagnitudePrune(sparsity=0.6)
    before = stored(attempt(tmp_path / "a", shared_mlp, (prune,), train).artifact)
    after = stored(attempt(tmp_path / "b", shared_mlp, (prune, QUICK), train).artifact)

    assert_same_groups(before["2.weight"], after["2.weight"])
    for name in ("0.weight", "2.weight", "4.weight"):
        assert (before[name] == 0).any()
        assert not after[name][before[name] == 0].any()
        assert not torch.equal(before[name], after[name])


class Tied(nn.Module):
    """Two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.second.weight = self.first.weight

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.last(self.second(self.first(rows).relu()).relu())
        return values


@pytest.mark.parametrize("kind", ["dense", "clustered"])
def test_tied_weights_stay_equal_to_the_last_bit(kind: str, train: Data, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Tied()
    if kind == "clustered":
        with torch.no_grad():
            network.first.weight.copy_(clustered(network.first.weight))
    model = write_network(network, trained.example_input("mlp"), tmp_path / "tied.pt2")
    before, after = stored(Path(model.path)), stored(attempt(tmp_path / "a", model, (QUICK,), train).artifact)

    assert torch.equal(after["first.weight"], after["second.weight"])
    assert not torch.equal(after["first.weight"], before["first.weight"])
    if kind == "clustered":
        assert_same_groups(before["first.weight"], after["first.weight"])


def test_rows_without_labels_teach_what_the_original_answers(tmp_path: Path) -> None:
    original = ModelFile(path=str(trained.write_pt2("mlp", tmp_path / "trained.pt2")), format="pt2")
    unlabelled = Data(train=digits("mlp", tmp_path / "rows.npz", labels=False))
    prune = MagnitudePrune(sparsity=0.9)
    pruned = attempt(tmp_path / "a", original, (prune,), unlabelled).open()
    recovered = attempt(
        tmp_path / "b", original, (prune, RecoverFinetune(epochs=8, learning_rate=3e-3)), unlabelled
    ).open()

    images = trained.digits_split()[1]
    expected = trained.trained("mlp")(torch.from_numpy(images)).argmax(1).numpy()
    agreeing = [
        np.mean(made.run({made.inputs[0].name: images})[0].argmax(1) == expected) for made in (pruned, recovered)
    ]
    assert agreeing[1] > max(0.9, agreeing[0] + 0.05)
    kept = state(recovered)
    for name, values in state(pruned).items():
        assert values.dim() == 1 or not kept[name][values == 0].any()


def test_full_training_keeps_only_what_an_earlier_step_made(shared_mlp: ModelFile, train: Data, tmp_path: Path) -> None:
    spec = FullFinetune(max_steps=20, validation=0.0)
    free = stored(attempt(tmp_path / "a", shared_mlp, (spec,), train).artifact)
    bound = stored(attempt(tmp_path / "b", shared_mlp, (MagnitudePrune(sparsity=0.1), spec), train).artifact)

    assert len(free["2.weight"].unique()) > 256
    assert len(bound["2.weight"].unique()) <= CODEBOOK + 1


def test_a_pruned_transformer_keeps_every_zero(tmp_path: Path) -> None:
    model, data, prune = write_bert(tmp_path, classes=3), write_sentences(tmp_path), MagnitudePrune(sparsity=0.5)
    before = state(attempt(tmp_path / "a", model, (prune,), data).open())
    after = state(attempt(tmp_path / "b", model, (prune, RecoverFinetune(epochs=2)), data).open())

    matrices = {name: values for name, values in before.items() if values.dim() > 1}
    assert sum(int((values == 0).sum()) for values in matrices.values()) > 0.3 * sum(
        map(torch.numel, matrices.values())
    )
    for name, values in matrices.items():
        assert not after[name][values == 0].any()
    assert not torch.equal(before["classifier.weight"], after["classifier.weight"])


@given(shapes, seeds)
def test_a_dense_weight_needs_nothing_to_keep_it(shape: tuple[int, ...], seed: int) -> None:
    assert keeping_structure(_dense(shape, seed)) is None


@given(shapes, seeds, st.floats(0.0, 1.0))
def test_zeros_are_masked_for_good(shape: tuple[int, ...], seed: int, share: float) -> None:
    weight = _dense(shape, seed)
    zeros = torch.rand(shape, generator=torch.Generator().manual_seed(seed + 1)) < share
    zeros.view(-1)[seed % weight.numel()] = True
    # A single value in a row of fewer than 256 may be a codebook of its own, once the weight is large.
    zeros.view(-1)[: min(300, weight.numel() - 1)] = False
    zeros.view(-1)[-1] = True
    weight[zeros] = 0.0

    kept = keeping_structure(weight)

    assert isinstance(kept, Masked)
    _assert_computes(kept, weight)


@given(st.sampled_from([(64, 64), (16, 256), (64, 16, 3, 3), (4096, 1)]), seeds, st.integers(1, 256), st.booleans())
def test_a_codebook_keeps_its_assignment_for_good(
    shape: tuple[int, ...],
    seed: int,
    values: int,
    zero: bool,
) -> None:
    book = _dense((values,), seed)
    if zero:
        book[0] = 0.0
    weight = book[torch.randint(values, shape, generator=torch.Generator().manual_seed(seed))]

    kept = keeping_structure(weight)

    assert isinstance(kept, Shared)
    _assert_computes(kept, weight)
    assert_same_groups(weight, kept())


@given(seeds)
def test_an_update_of_low_rank_starts_at_the_weight(seed: int) -> None:
    weight = _dense((12, 5, 3, 3), seed)
    update = LowRank(weight, 2, 4.0, torch.Generator().manual_seed(seed))

    assert torch.equal(update(), weight)
    with torch.no_grad():
        update.up.fill_(1.0)
    assert int(torch.linalg.matrix_rank((update() - weight).reshape(12, -1), rtol=1e-4)) <= 2


def _dense(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Values of either sign, none of them zero."""
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) + 0.5
    signs = torch.rand(shape, generator=torch.Generator().manual_seed(seed + 1)) < 0.5
    return torch.where(signs, -values, values)


def _assert_computes(kept: nn.Module, weight: torch.Tensor) -> None:
    """The weight itself; after an update another one with the same zeros."""
    assert torch.equal(kept(), weight)
    optimizer = torch.optim.AdamW(kept.parameters(), lr=0.1, weight_decay=0.1)
    (kept() - 3.0).pow(2).sum().backward()
    optimizer.step()
    assert not kept()[weight == 0].any()
    assert bool(weight.any()) is not torch.equal(kept(), weight)
