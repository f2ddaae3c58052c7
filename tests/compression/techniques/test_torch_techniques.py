from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import trained
from tests.compression.judging import accuracy
from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.torch import pt2
from workers.compression.families.torch.pt2_model import Pt2Model
from workers.compression.registry import handler_for
from workers.compression.specs.errors import NumericalFailure, UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.step import Step
from workers.compression.specs.steps.prune_weights import MagnitudePrune
from workers.compression.specs.steps.quantize import DynamicQuantize, Float16Quantize

Open = Callable[[str], Pt2Model]
Digits = Callable[..., Dataset]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pt2")
    return {kind: trained.write_pt2(kind, folder / f"{kind}.pt2") for kind in ("mlp", "cnn")}


@pytest.fixture
def open_pt2(files: dict[str, Path], tmp_path: Path) -> Open:
    return lambda kind: pt2.open_model(files[kind], Context(scratch=tmp_path))


def applied(model: Pt2Model, spec: Step, context: Context) -> Pt2Model:
    """What the step makes of the model, saved and opened again."""
    handler_for(type(spec), ModelFormat.PT2)(model, spec, context).save(context.scratch / "made.pt2")
    return pt2.open_model(context.scratch / "made.pt2", context)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
@pytest.mark.parametrize(
    ("spec", "share"),
    [
        (DynamicQuantize(), 0.35),
        (DynamicQuantize(scheme="affine"), 0.38),
        (DynamicQuantize(granularity="tensor"), 0.35),
        (DynamicQuantize(granularity="tensor", scheme="affine"), 0.38),
        (Float16Quantize(), 0.6),
    ],
    ids=["symmetric", "affine", "symmetric-tensor", "affine-tensor", "float16"],
)
def test_weights_shrink_and_accuracy_stays(
    kind: str, spec: Step, share: float, open_pt2: Open, digits: Digits, tmp_path: Path
) -> None:
    original, rows = open_pt2(kind), digits(kind)

    made = applied(open_pt2(kind), spec, Context(scratch=tmp_path))

    assert made.size_bytes() < share * original.size_bytes()
    assert accuracy(made, rows) > accuracy(original, rows) - 0.005
    assert [layer.name for layer in made.stored_layers()] == [layer.name for layer in original.stored_layers()]
    assert sum(layer.parameters for layer in made.stored_layers()) == sum(
        layer.parameters for layer in original.stored_layers()
    )


def test_the_artifact_is_the_same_in_stock_torch(open_pt2: Open, tmp_path: Path) -> None:
    made = applied(open_pt2("cnn"), DynamicQuantize(), Context(scratch=tmp_path))
    rows = torch.from_numpy(trained.digits_split()[1][:64].reshape(-1, 1, 8, 8))

    stock = torch.export.load(tmp_path / "made.pt2").module()

    stored = torch.export.load(tmp_path / "made.pt2").state_dict
    assert stored["0.weight"].dtype == torch.float32, "too small to gain from integers"
    assert {stored[name].dtype for name in ("3.weight", "7.weight", "10.weight")} <= {torch.int8}
    with torch.inference_mode():
        assert np.array_equal(stock(rows).numpy(), made.run({made.inputs[0].name: rows.numpy()})[0])


def test_embedding_rows_are_restored_after_the_look_up(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Embedding(4000, 32), torch.nn.Linear(32, 64)).eval()
    ids = torch.arange(12).reshape(3, 4)
    torch.export.save(torch.export.export(module, (ids,)), tmp_path / "table.pt2")
    context = Context(scratch=tmp_path)

    made = applied(pt2.open_model(tmp_path / "table.pt2", context), DynamicQuantize(), context)

    shapes = [tuple(node.meta["val"].shape) for node in made.program.graph.nodes if "_to_copy" in str(node.target)]
    assert (4000, 32) not in shapes, "the whole table would be expanded in every call"
    np.testing.assert_allclose(made.run({"input": ids.numpy()})[0], module(ids).detach().numpy(), atol=0.05)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_pruning_counts_are_exact(scope: str, open_pt2: Open, tmp_path: Path) -> None:
    spec = MagnitudePrune.model_validate({"sparsity": 0.5, "scope": scope, "exclude": ["4"]})

    made = applied(open_pt2("mlp"), spec, Context(scratch=tmp_path))

    zeros = {name: int(np.count_nonzero(array == 0)) for name, array in made.tensors() if array.ndim == 2}
    assert zeros["0.weight"] + zeros["2.weight"] == (64 * 256 + 256 * 128) // 2
    assert zeros["4.weight"] == 0


def test_tied_weights_stay_one(tmp_path: Path) -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(300, 16)
            self.head = torch.nn.Linear(16, 300, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.table(ids))
            return out

    torch.manual_seed(0)
    module, ids = Tied().eval(), torch.arange(6).reshape(2, 3)
    torch.export.save(torch.export.export(module, (ids,)), tmp_path / "tied.pt2")
    context = Context(scratch=tmp_path)

    made = applied(pt2.open_model(tmp_path / "tied.pt2", context), DynamicQuantize(), context)

    stored = {name: array.nbytes for name, array in made.tensors()}
    assert stored.pop("quantization_notes") < 600
    assert sum(stored.values()) == 300 * 16 + 300 * 4
    np.testing.assert_allclose(made.run({"ids": ids.numpy()})[0], module(ids).detach().numpy(), atol=0.2)


def test_a_weight_that_integers_cannot_stand_for_is_named(tmp_path: Path) -> None:
    module = torch.nn.Linear(64, 64)
    with torch.no_grad():
        module.weight[0, 0] = torch.nan
    torch.export.save(torch.export.export(module, (torch.ones(1, 64),)), tmp_path / "nan.pt2")
    context = Context(scratch=tmp_path)
    with pytest.raises(NumericalFailure, match="weight"):
        applied(pt2.open_model(tmp_path / "nan.pt2", context), DynamicQuantize(), context)


def test_nothing_selected_is_said(open_pt2: Open, tmp_path: Path) -> None:
    for spec in (
        DynamicQuantize(include=("none",)),
        Float16Quantize(include=("none",)),
        MagnitudePrune(exclude=("*",)),
    ):
        with pytest.raises(UnsupportedTechnique, match="selected"):
            applied(open_pt2("mlp"), spec, Context(scratch=tmp_path))
