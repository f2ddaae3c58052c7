"""Evidence of the steps that store once what stands in a model several times."""

import lzma
from pathlib import Path

import safetensors.torch
import torch

from tests import trained
from tests.benchmarks import peers
from tests.benchmarks.rows import SYNTHETIC, Row

EPOCHS = 20


def a_model_and_its_new_head(folder: Path) -> Path:
    """A CNN trained on all digits and the same one after only its last layer was trained on even against odd."""
    network = trained.trained("cnn")
    first = {name: values.clone() for name, values in network.state_dict().items()}
    images, _, labels, _ = trained.digits_split()
    with torch.no_grad():
        features = network[:-1](torch.from_numpy(images.reshape(-1, 1, 8, 8)))
    head = torch.nn.Linear(features.shape[1], network[-1].out_features)
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(EPOCHS):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(features), torch.from_numpy(labels % 2).long()).backward()
        optimizer.step()
    last = len(network) - 1
    second = first | {f"{last}.weight": head.weight.detach(), f"{last}.bias": head.bias.detach()}
    pair = {
        f"{side}.{name}": values.clone()
        for side, state in (("digit", first), ("parity", second))
        for name, values in state.items()
    }
    path = folder / "pair.safetensors"
    safetensors.torch.save_file(pair, path)
    return path


def xz(subject: peers.Subject) -> peers.Figures:
    """The file compressed by xz, which finds repeats too but has to be unpacked before use."""
    return peers.Figures(len(lzma.compress(subject.model.read_bytes())), 1.0, 1.0)


ROWS = (
    Row(
        {"technique": "share", "method": "tie"}, "CNN on digits and its sibling with another head, safetensors",
        a_model_and_its_new_head, SYNTHETIC, None, "fidelity",
        "xz of the file, to be unpacked before use", xz,
    ),
)  # fmt: skip
