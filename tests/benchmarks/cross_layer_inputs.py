"""A small vision transformer whose blocks are alike, and what plain PyTorch makes of sharing among them."""

import torch
from torch import nn
from torch.nn import functional

from tests.benchmarks.peers import Figures, Subject, judged
from tests.benchmarks.training_inputs import write_pt2
from tests.benchmarks.training_peers import fine_tune, network_of, rows_of
from workers.compression.specs.steps.share import CrossLayerShare

WIDTH, HEADS, BLOCKS, PATCH = 64, 4, 6, 7
MATRICES = ("mixed", "attended", "widened", "narrowed")


class Block(nn.Module):
    """A transformer's block with the norms before its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first_norm, self.second_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mixed = nn.Linear(WIDTH, 3 * WIDTH)
        self.attended = nn.Linear(WIDTH, WIDTH)
        self.widened = nn.Linear(WIDTH, 2 * WIDTH)
        self.narrowed = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """The same number of tokens."""
        heads = self.mixed(self.first_norm(tokens)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        tokens = tokens + self.attended(mixed.transpose(1, 2).flatten(2))
        return tokens + self.narrowed(functional.gelu(self.widened(self.second_norm(tokens))))


class VisionTransformer(nn.Module):
    """Six blocks over the sixteen patches of an image [n, 1, 28, 28] (Dosovitskiy et al., arXiv:2010.11929)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, PATCH, PATCH)
        self.places = nn.Parameter(0.02 * torch.randn(1, (28 // PATCH) ** 2, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores of the classes."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.places
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens).mean(dim=1))


def tie_consecutive(network: VisionTransformer, copies: int) -> None:
    """As ALBERT's groups (arXiv:1909.11942): blocks next to each other share the matrices of the first, in place."""
    for number, block in enumerate(network.blocks):
        first = network.blocks[number * copies // BLOCKS * BLOCKS // copies]
        for name in MATRICES:
            getattr(block, name).weight = getattr(first, name).weight


def plain_sharing(subject: Subject) -> Figures:
    """``tie_consecutive``, then as many epochs of plain training on the labels."""
    spec = CrossLayerShare.model_validate(subject.step)
    network = network_of(subject.model, VisionTransformer)
    if not isinstance(network, VisionTransformer) or spec.copies is None:
        raise TypeError("this peer ties the blocks of one kind of network into a given number of groups")
    tie_consecutive(network, spec.copies)
    fine_tune(network, rows_of(subject.train), spec.recovery)
    return judged(subject, write_pt2(network, subject.folder / "peer.pt2"))
