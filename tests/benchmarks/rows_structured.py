"""The evidence's row of pruning whole channels."""

import copy
from pathlib import Path
from typing import Any

import torch

from tests import trained
from tests.benchmarks import peers, structured_peers
from tests.benchmarks.rows import CNN, DIGITS, Row

MACS = 0.4
STRUCTURED: dict[str, Any] = {"technique": "prune", "method": "structured", "macs": MACS}


def torch_pruning_alone(subject: peers.Subject) -> peers.Figures:
    """torch-pruning's group norms, global, without training afterwards, exported to ONNX."""
    network = structured_peers.pruned(copy.deepcopy(trained.trained("cnn")), trained.example_input("cnn"), MACS)
    sizes = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(
        network.eval(), (trained.example_input("cnn"),), dynamo=True, input_names=["input"],
        output_names=["logits"], dynamic_shapes=sizes, verbose=False,
    )  # fmt: skip
    if program is None:
        raise RuntimeError("the exporter gave no program")
    program.save(str(subject.folder / "peer.onnx"))
    return peers.judged(subject, subject.folder / "peer.onnx")


def _cnn(folder: Path) -> Path:
    return trained.write_onnx("cnn", folder / "digits_cnn.onnx")


def _data(folder: Path) -> Path:
    return trained.write_npz("cnn", folder / "digits.npz")


ROWS = (
    Row(
        STRUCTURED, f"{CNN}, ONNX", _cnn, DIGITS, _data, "accuracy",
        "torch-pruning GroupMagnitudeImportance, same MACs, no training after either", torch_pruning_alone,
    ),
)  # fmt: skip
