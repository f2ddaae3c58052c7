"""A small residual network whose blocks are alike, and what plain PyTorch makes of sharing among them."""

import torch
from torch import nn

from tests.benchmarks.peers import Figures, Subject, judged
from tests.benchmarks.structured_inputs import Block
from tests.benchmarks.training_inputs import write_pt2
from tests.benchmarks.training_peers import fine_tune, rows_of
from workers.compression.specs.steps.share import CrossLayerShare

WIDTH, BLOCKS = 24, 6


def resnet(classes: int) -> nn.Sequential:
    """Six residual blocks of one shape over what a stem makes of an image [n, 1, 28, 28]: seven pixels a side."""
    return nn.Sequential(
        nn.Conv2d(1, WIDTH, 5, 4, 2, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(),
        nn.Sequential(*(Block(WIDTH, WIDTH, 1) for _ in range(BLOCKS))),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, classes),
    )  # fmt: skip


def tie_consecutive(blocks: nn.Module, copies: int) -> None:
    """As ALBERT's groups (arXiv:1909.11942): blocks next to each other share the kernels of the first, in place."""
    members = list(blocks.children())
    for number, block in enumerate(members):
        first = members[number * copies // BLOCKS * BLOCKS // copies]
        for name in ("first", "second"):
            getattr(block, name).weight = getattr(first, name).weight


def plain_sharing(subject: Subject) -> Figures:
    """``tie_consecutive``, then as many epochs of plain training on the labels."""
    spec = CrossLayerShare.model_validate(subject.step)
    if spec.copies is None:
        raise ValueError("this peer ties blocks into a given number of groups")
    weights = torch.export.load(subject.model).state_dict
    network = resnet(len(weights["6.bias"]))
    network.load_state_dict(weights)
    tie_consecutive(network.get_submodule("3"), spec.copies)
    fine_tune(network, rows_of(subject.train), spec.recovery)
    return judged(subject, write_pt2(network, subject.folder / "peer.pt2"))
