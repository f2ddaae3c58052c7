"""Batch norms of exported programs fold into the layer before them, and only where that changes no answer."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from workers.compression.context import Context
from workers.compression.families.torch.pt2 import open_model
from workers.compression.families.torch.pt2_batch_norm import fold_batch_norms
from workers.compression.families.torch.pt2_model import Pt2Model


class Shared(nn.Module):
    """A convolution that two norms read."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.first, self.second = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        made = self.convolution(images)
        return self.first(made) + self.second(made)


IMAGES, ROWS, SERIES = torch.randn(3, 2, 8, 8), torch.randn(5, 6), torch.randn(3, 6, 9)
FOLDED: dict[str, tuple[Callable[[], nn.Module], torch.Tensor]] = {
    "bias": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), IMAGES),
    "no bias": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()), IMAGES),
    "bias, plain norm": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, affine=False)), IMAGES),
    "groups": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4), nn.ReLU()), IMAGES),
    "padding by name": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding="same"), nn.BatchNorm2d(4)), IMAGES),
    "one dimension": (lambda: nn.Sequential(nn.Conv1d(6, 4, 3), nn.BatchNorm1d(4)), SERIES),
    "linear": (lambda: nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 2)), ROWS),
}
KEPT: dict[str, tuple[Callable[[], nn.Module], torch.Tensor]] = {
    "before the layer": (lambda: nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3)), IMAGES),
    "behind an activation": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), IMAGES),
    "inputs first": (lambda: nn.Sequential(nn.ConvTranspose2d(2, 4, 3), nn.BatchNorm2d(4)), IMAGES),
    "channels elsewhere": (lambda: nn.Sequential(nn.Linear(9, 5), nn.BatchNorm1d(6)), SERIES),
    "two readers": (Shared, IMAGES),
    "nothing to take a shift": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False)), IMAGES,
    ),
}  # fmt: skip


def exported(build: Callable[[], nn.Module], example: torch.Tensor, path: Path, *, decomposed: bool) -> Pt2Model:
    """A network whose norms have figures of their own."""
    torch.manual_seed(0)
    network = build()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.2, 3.0)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    program = torch.export.export(network.eval(), (example,))
    torch.export.save(program.run_decompositions() if decomposed else program, path)
    model = open_model(path, Context(scratch=path.parent))
    assert isinstance(model, Pt2Model)
    return model


def norms(model: Pt2Model) -> int:
    return sum("batch_norm" in str(node.target) for node in model.program.graph.nodes if node.op == "call_function")


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("name", FOLDED)
def test_a_folded_norm_leaves_the_answers_as_they_were(name: str, decomposed: bool, tmp_path: Path) -> None:
    build, example = FOLDED[name]
    model = exported(build, example, tmp_path / "a.pt2", decomposed=decomposed)
    feeds = {model.inputs[0].name: example.numpy()}
    before = torch.from_numpy(model.run(feeds)[0])

    folded = fold_batch_norms(model.program)
    model.changed()
    if decomposed and name == "linear":
        assert folded == 0, "a decomposed linear layer is a product with a transposed weight"
        return

    assert folded == 1
    assert norms(model) == 0
    assert not [name for name, _ in model.tensors() if "running" in name or "num_batches" in name]
    model.save(tmp_path / "b.pt2")
    after = torch.export.load(tmp_path / "b.pt2").module()(example)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", KEPT)
def test_other_norms_stay(name: str, tmp_path: Path) -> None:
    build, example = KEPT[name]
    model = exported(build, example, tmp_path / "a.pt2", decomposed=False)
    feeds = {model.inputs[0].name: example.numpy()}
    before, count = model.run(feeds)[0], norms(model)

    assert fold_batch_norms(model.program) == 0
    model.changed()

    assert norms(model) == count > 0
    torch.testing.assert_close(torch.from_numpy(model.run(feeds)[0]), torch.from_numpy(before), rtol=0, atol=0)
