from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests import trained
from workers.compression.context import Context
from workers.compression.families.torch import pt2
from workers.compression.families.torch.pt2_model import Pt2Model
from workers.compression.families.torch.storage import IntegerWeight, Place
from workers.compression.families.trainable import Trainable
from workers.compression.specs.errors import UnsupportedTechnique

ANY_BATCH = ({0: torch.export.Dim("batch", min=1, max=4096)},)
Open = Callable[..., Pt2Model]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """A module exported, saved and opened as an upload is."""

    def make(module: nn.Module, example: torch.Tensor, *, fixed: bool = False) -> Pt2Model:
        program = torch.export.export(module, (example,), dynamic_shapes=None if fixed else ANY_BATCH)
        torch.export.save(program, tmp_path / "model.pt2")
        return pt2.open_model(tmp_path / "model.pt2", Context(scratch=tmp_path))

    return make


@pytest.fixture
def open_digits(opened: Open) -> Callable[[str], Pt2Model]:
    return lambda kind: opened(trained.trained(kind), trained.example_input(kind))


def rows_of(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Training rows and labels, with the labels turned round, so that there is something new to learn."""
    images, _, labels, _ = trained.digits_split()
    inputs = torch.from_numpy(images if kind == "mlp" else images.reshape(-1, 1, 8, 8))
    return inputs[:256], 9 - torch.from_numpy(labels)[:256]


def train(trainable: Trainable, rows: tuple[torch.Tensor, torch.Tensor], steps: int = 15) -> list[float]:
    """Losses of some updates on the same rows."""
    optimizer = torch.optim.AdamW(trainable.module.parameters(), lr=3e-3)
    losses = []
    trainable.module.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(trainable.module(rows[0])[0], rows[1])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    trainable.module.eval()
    return losses


def stock_output(model: Pt2Model, path: Path, rows: torch.Tensor) -> torch.Tensor:
    model.save(path)
    with torch.no_grad():
        output: torch.Tensor = torch.export.load(path).module()(rows)
    return output


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_what_was_trained_is_what_stock_torch_opens(
    kind: str, open_digits: Callable[[str], Pt2Model], tmp_path: Path
) -> None:
    model, rows = open_digits(kind), rows_of(kind)
    before = model.run({model.inputs[0].name: rows[0].numpy()})[0]
    trainable = model.trainable()
    assert np.allclose(trainable.module(rows[0])[0].detach().numpy(), before, atol=1e-5)

    losses = train(trainable, rows)
    assert np.array_equal(model.run({model.inputs[0].name: rows[0].numpy()})[0], before), "the model is left alone"
    model.adopt(trainable)

    assert losses[-1] < losses[0] / 2
    expected = trainable.module(rows[0])[0].detach()
    torch.testing.assert_close(stock_output(model, tmp_path / "made.pt2", rows[0]), expected, rtol=1e-5, atol=1e-5)
    model.save(tmp_path / "again.pt2")
    assert (tmp_path / "made.pt2").read_bytes() == (tmp_path / "again.pt2").read_bytes()


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_substituted_parameters_learn_as_the_modules_own(kind: str, open_digits: Callable[[str], Pt2Model]) -> None:
    trainable, rows = open_digits(kind).trainable(), rows_of(kind)
    own = dict(trainable.module.named_parameters())
    updates = {name: torch.zeros_like(value, requires_grad=True) for name, value in own.items()}

    substituted = {name: own[name].detach() + update for name, update in updates.items()}
    output = torch.func.functional_call(trainable.module, substituted, (rows[0],))[0]
    nn.functional.cross_entropy(output, rows[1]).backward()
    nn.functional.cross_entropy(trainable.module(rows[0])[0], rows[1]).backward()

    for name, update in updates.items():
        torch.testing.assert_close(update.grad, own[name].grad)


def test_layers_linear_weights_and_taps_follow_the_graph(open_digits: Callable[[str], Pt2Model]) -> None:
    trainable = open_digits("cnn").trainable()
    outputs, states = trainable.tapped(torch.zeros(3, 1, 8, 8))  # type: ignore[misc]  # a program always has taps

    owners = [names[0].partition(".")[0] for names in trainable.layers]
    assert owners == ["0", "1", "3", "4", "7", "10"]
    assert trainable.linear == ("0.weight", "3.weight", "7.weight", "10.weight")
    assert trainable.taps == tuple(states) == ("0", "1", "3", "4", "7")
    assert outputs[0].shape == (3, 10)
    assert [tuple(states[name].shape[1:]) for name in ("1", "4", "7")] == [(32, 8, 8), (64, 8, 8), (64, 4, 4)]
    assert not (states["1"] < 0.0).any(), "past its activation"


class Repeated(nn.Module):
    """Two residual blocks between an embedding and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 8)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2))
        self.head = nn.Linear(8, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        states = self.table(ids)
        for block in self.blocks:
            states = block(states)
        output: torch.Tensor = self.head(states.mean(1))
        return output


def test_repeated_blocks_are_one_layer_each(opened: Open) -> None:
    torch.manual_seed(0)
    trainable = opened(Repeated().eval(), torch.arange(8).reshape(2, 4)).trainable()
    assert [{name.rpartition(".")[0][:8] for name in names} for names in trainable.layers] == [
        {"table"},
        {"blocks.0"},
        {"blocks.1"},
        {"head"},
    ]
    assert trainable.taps == ("table", "blocks.0", "blocks.1")
    assert "table.weight" not in trainable.linear


class Tied(nn.Module):
    """An embedding that the last layer reads too."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 8)
        self.middle = nn.Linear(8, 8)
        self.head = nn.Linear(8, 30, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.head(self.middle(self.table(ids)).mean(1))
        return output


def test_tied_weights_are_one_parameter_and_stay_tied(opened: Open, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = opened(Tied().eval(), torch.arange(8).reshape(2, 4))
    trainable = model.trainable()
    assert [name for name, _ in trainable.module.named_parameters()].count("table.weight") == 1
    assert "head.weight" not in dict(trainable.module.named_parameters())
    assert trainable.layers[-1] == ("table.weight",), "it makes the output"

    ids = torch.arange(28).reshape(7, 4)
    losses = train(trainable, (ids, torch.arange(7)))
    model.adopt(trainable)

    assert losses[-1] < losses[0]
    torch.testing.assert_close(stock_output(model, tmp_path / "made.pt2", ids), trainable.module(ids)[0].detach())
    state = torch.export.load(tmp_path / "made.pt2").state_dict
    assert state["table.weight"].data_ptr() == state["head.weight"].data_ptr()
    with pytest.raises(UnsupportedTechnique, match="tied"):
        model.with_head(("a", "b"), seed=0)


class Modes(nn.Module):
    """A batch norm and a dropout before a head."""

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        self.body = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(6, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.head(self.drop(self.norm(self.body(rows))))
        return output


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_batch_norms_learn_the_batches_figures_as_the_module_would(decomposed: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, rows = Modes(dropout=0.0).eval(), torch.randn(32, 4) * 3 + 1
    program = torch.export.export(module, (rows,), dynamic_shapes=ANY_BATCH)
    torch.export.save(program.run_decompositions() if decomposed else program, tmp_path / "model.pt2")
    model = pt2.open_model(tmp_path / "model.pt2", Context(scratch=tmp_path))
    trainable = model.trainable()

    trained_output = trainable.module.train()(rows)[0]

    torch.testing.assert_close(trained_output, module.train()(rows))
    buffers = dict(trainable.module.named_buffers())
    torch.testing.assert_close(buffers["norm.running_mean"], module.norm.running_mean)
    torch.testing.assert_close(buffers["norm.running_var"], module.norm.running_var)
    model.adopt(trainable)
    torch.testing.assert_close(stock_output(model, tmp_path / "made.pt2", rows), module.eval()(rows).detach())


def test_a_frozen_batch_norm_keeps_its_figures(opened: Open) -> None:
    torch.manual_seed(0)
    trainable = opened(Modes(dropout=0.0).eval(), torch.randn(2, 4)).trainable()
    rows, buffers = torch.randn(32, 4) * 3 + 1, dict(trainable.module.named_buffers())
    expected, before = trainable.module(rows)[0], buffers["norm.running_mean"].clone()

    for name, parameter in trainable.module.named_parameters():
        parameter.requires_grad_(requires_grad=not name.startswith("norm"))

    assert torch.equal(trainable.module.train()(rows)[0], expected)
    assert torch.equal(buffers["norm.running_mean"], before)


def test_dropout_is_on_in_training_only(opened: Open) -> None:
    torch.manual_seed(0)
    trainable = opened(Modes().eval(), torch.randn(2, 4)).trainable()
    trainable.module.get_parameter("norm.weight").requires_grad_(requires_grad=False)
    trainable.module.get_parameter("norm.bias").requires_grad_(requires_grad=False)
    rows = torch.randn(32, 4)

    trainable.module.train()
    assert not torch.equal(trainable.module(rows)[0], trainable.module(rows)[0])
    trainable.module.eval()
    assert torch.equal(trainable.module(rows)[0], trainable.module(rows)[0])


def test_a_program_exported_in_training_mode_is_refused(opened: Open) -> None:
    with pytest.raises(UnsupportedTechnique, match="training mode") as refused:
        opened(Modes().train(), torch.randn(2, 4)).trainable()
    assert "eval()" in str(refused.value.hint)


def test_integer_weights_are_refused(open_digits: Callable[[str], Pt2Model]) -> None:
    model = open_digits("mlp")
    integers = torch.ones(256, 64, dtype=torch.int8)
    place = Place.plain(256, 64, torch.float32)
    model.store_as("0.weight", IntegerWeight(integers, torch.ones(256, 1), 8, (1, 64), place))
    with pytest.raises(UnsupportedTechnique, match=r"0\.weight is stored as integers"):
        model.trainable()


@pytest.mark.parametrize("stored", ["by_us", "native"])
def test_half_precision_trains_in_float32_and_is_stored_as_it_was(stored: str, opened: Open, tmp_path: Path) -> None:
    images, labels = rows_of("mlp")
    network = trained.mlp().eval()
    network.load_state_dict(trained.trained("mlp").state_dict())
    native = stored == "native"
    model = opened(network.half(), images[:2].half()) if native else opened(network, images[:2])
    if not native:
        model.store_as("0.weight", torch.float16)
    trainable = model.trainable()
    assert {parameter.dtype for parameter in trainable.module.parameters()} == {torch.float32}
    assert "0.weight" in dict(trainable.module.named_parameters())

    losses = train(trainable, (images, labels), steps=5)
    model.adopt(trainable)

    assert losses[-1] < losses[0]
    inputs = images.half() if native else images
    expected = trainable.module(inputs)[0].detach()
    found = stock_output(model, tmp_path / "made.pt2", inputs)
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.05)
    assert torch.export.load(tmp_path / "made.pt2").state_dict["0.weight"].dtype == torch.float16


def test_a_program_for_a_fixed_batch_says_so(opened: Open) -> None:
    model = opened(trained.trained("mlp"), trained.example_input("mlp"), fixed=True)
    assert model.trainable().compute_batch == 2


@pytest.mark.parametrize("classes", [("odd", "even", "neither"), ("value",)])
def test_a_fresh_head_learns_and_opens_everywhere(
    classes: tuple[str, ...], open_digits: Callable[[str], Pt2Model], tmp_path: Path
) -> None:
    images, labels = rows_of("cnn")
    old = open_digits("cnn")
    state = torch.get_rng_state()
    made = old.with_head(classes, seed=3)
    assert torch.equal(torch.get_rng_state(), state), "torch's own random state is left alone"
    assert made.outputs[0].shape[1:] == (len(classes),)
    assert old.outputs[0].shape[1:] == (10,)

    body = {name: tensor.load() for name, tensor in old.parameters()}
    assert body.keys() == dict(made.parameters()).keys()
    fresh = {name for name, tensor in made.parameters() if not torch.equal(tensor.load(), body[name])}
    assert fresh == {"10.weight", "10.bias"}

    if len(classes) > 1:
        trainable = made.trainable()
        losses = train(trainable, (images, labels % 3))
        made.adopt(trainable)
        assert losses[-1] < losses[0] / 2
    stock = stock_output(made, tmp_path / "made.pt2", images)
    again = pt2.open_model(tmp_path / "made.pt2", Context(scratch=tmp_path))
    np.testing.assert_allclose(again.run({again.inputs[0].name: images.numpy()})[0], stock.numpy(), atol=1e-5)
    assert stock.shape == (len(images), len(classes))


class Bare(nn.Module):
    """A last layer of bare tensors, its weight as (inputs, outputs)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(64, 32)
        self.weight = nn.Parameter(torch.randn(32, 10))
        self.bias = nn.Parameter(torch.randn(10))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.body(rows).relu() @ self.weight + self.bias


def test_a_last_layer_of_bare_tensors_is_one_layer_and_replaced(opened: Open, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = opened(Bare().eval(), trained.example_input("mlp"))
    assert model.trainable().layers == (("body.weight", "body.bias"), ("weight", "bias"))
    assert model.trainable().linear == ("body.weight",), "the other has its outputs last"
    made = model.with_head(("x", "y", "z"), seed=0)
    assert stock_output(made, tmp_path / "made.pt2", trained.example_input("mlp")).shape == (2, 3)
    assert {name: tuple(tensor.shape) for name, tensor in made.parameters()}["weight"] == (32, 3)


def test_the_seed_makes_the_head(open_digits: Callable[[str], Pt2Model], tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        open_digits("mlp").with_head(("x", "y"), seed).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


@pytest.mark.parametrize(
    ("last", "activation"), [(nn.Softmax(-1), "softmax"), (nn.LogSoftmax(-1), "log_softmax"), (nn.Sigmoid(), "sigmoid")]
)
def test_an_activation_after_the_head_is_kept_and_named(last: nn.Module, activation: str, opened: Open) -> None:
    torch.manual_seed(0)
    model = opened(nn.Sequential(trained.mlp(), last).eval(), trained.example_input("mlp"))
    made = model.with_head(("x", "y", "z"), seed=0)
    rows = trained.example_input("mlp").numpy()

    assert made.trainable().output_activation == activation
    assert made.run({made.inputs[0].name: rows})[0].shape == (2, 3)


class Two(nn.Module):
    """Two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.first(rows), self.second(rows)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Two(), "returns or changes 2 tensors"),
        (nn.Sequential(nn.Linear(64, 10), nn.Flatten(0)), "counts on 10 outputs"),
        (nn.Sequential(nn.Linear(64, 10), nn.LayerNorm(10)), "layer_norm"),
    ],
    ids=["two", "sized", "norm"],
)
def test_what_stands_in_the_way_of_a_new_head_is_named(module: nn.Module, reason: str, opened: Open) -> None:
    with pytest.raises(UnsupportedTechnique, match=reason):
        opened(module.eval(), trained.example_input("mlp")).with_head(("x", "y", "z"), seed=0)
