"""The evidence's rows of pruning while a network trains, and the peer they are held against."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune

from tests.benchmarks.peers import Figures, Subject, judged
from tests.benchmarks.rows import Row
from tests.benchmarks.training_inputs import digits_of, fit, lenet, write_digits, write_pt2
from tests.benchmarks.training_peers import fine_tune, network_of, rows_of
from workers.compression.specs.steps.prune_weights import MagnitudePrune

DIGITS, ROWS_TO_LEARN = range(10), 5000
TRAINING = {"epochs": 6, "learning_rate": 2e-3, "validation": 0.0}
SCHEDULES: dict[str, dict[str, Any]] = {
    "gradual": {"kind": "gradual", "every": 20, "recovery": TRAINING},
    "rewinding the rate": {"kind": "rewind", "rounds": 3, "recovery": TRAINING | {"epochs": 2}},
}


@lru_cache
def _trained() -> nn.Module:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so small a network gains nothing from a second one
    return fit(lenet(len(DIGITS)), digits_of("train", DIGITS), epochs=4, seed=0)


def pruned_at_once(subject: Subject) -> Figures:
    """``torch.nn.utils.prune.global_unstructured``, then as many epochs of training on the labels."""
    spec = MagnitudePrune.model_validate(subject.step)
    if spec.schedule is None:
        raise ValueError("this peer trains as long as a schedule does")
    network = network_of(subject.model, lenet)
    layers = [(layer, "weight") for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=spec.sparsity)
    fine_tune(network, rows_of(subject.train), spec.schedule.recovery.model_copy(update={"epochs": TRAINING["epochs"]}))
    for layer, name in layers:
        prune.remove(layer, name)
    return judged(subject, write_pt2(network, subject.folder / "peer.pt2"))


def _model(folder: Path) -> Path:
    return write_pt2(_trained(), folder / "lenet.pt2")


def _row(name: str, schedule: dict[str, Any]) -> Row:
    return Row(
        {"technique": "prune", "method": "magnitude", "sparsity": 0.98, "schedule": schedule},
        f"LeNet-5 of 61,706 parameters to 2 %, {name}, pt2", _model, f"MNIST, {ROWS_TO_LEARN} training rows",
        lambda folder: write_digits(folder, DIGITS, ROWS_TO_LEARN).test, "accuracy",
        "torch.nn.utils.prune.global_unstructured at once, plain training, same epochs", pruned_at_once,
        write_train=lambda folder: write_digits(folder, DIGITS, ROWS_TO_LEARN).train,
    )  # fmt: skip


ROWS = tuple(_row(name, schedule) for name, schedule in SCHEDULES.items())
