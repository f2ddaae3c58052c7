"""The evidence's rows of pruning whole channels."""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers.models.bert.modeling_bert import BertModel

from app.cli.zoo import fetch
from tests import trained
from tests.benchmarks import inputs, peers, structured_peers
from tests.benchmarks.rows import CNN, DIGITS, MINILM, WORDS, Row

MACS = 0.4
STRUCTURED: dict[str, Any] = {"technique": "prune", "method": "structured", "macs": MACS}


def _pruned() -> torch.nn.Module:
    """By torch-pruning's group norms, global, without training afterwards."""
    network = copy.deepcopy(trained.trained("cnn"))
    return structured_peers.pruned(network, trained.example_input("cnn"), MACS).eval()


def torch_pruning_onnx(subject: peers.Subject) -> peers.Figures:
    """torch-pruning's network, exported to ONNX."""
    sizes = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(
        _pruned(), (trained.example_input("cnn"),), dynamo=True, input_names=["input"],
        output_names=["logits"], dynamic_shapes=sizes, verbose=False,
    )  # fmt: skip
    if program is None:
        raise RuntimeError("the exporter gave no program")
    program.save(str(subject.folder / "peer.onnx"))
    return peers.judged(subject, subject.folder / "peer.onnx")


def torch_pruning_program(subject: peers.Subject) -> peers.Figures:
    """torch-pruning's network, exported by torch."""
    return peers.judged(subject, trained.write_program(_pruned(), "cnn", subject.folder / "peer.pt2"))


def _cnn(folder: Path) -> Path:
    return trained.write_onnx("cnn", folder / "digits_cnn.onnx")


def torch_pruning_neurons(subject: peers.Subject) -> peers.Figures:
    """torch-pruning on MiniLM, as many neurons less of every layer."""
    model = BertModel.from_pretrained(fetch("minilm-l6-hf"), attn_implementation="eager").eval()
    return peers.minilm_against(subject, structured_peers.narrowed(model, float(str(subject.step["sparsity"]))))


def _program(folder: Path) -> Path:
    return trained.write_pt2("cnn", folder / "digits_cnn.pt2")


def _data(folder: Path) -> Path:
    return trained.write_npz("cnn", folder / "digits.npz")


ROWS = (
    Row(
        STRUCTURED, f"{CNN}, ONNX", _cnn, DIGITS, _data, "accuracy",
        "torch-pruning GroupMagnitudeImportance, same MACs, no training after either", torch_pruning_onnx,
    ),
    Row(
        STRUCTURED, f"{CNN}, pt2", _program, DIGITS, _data, "accuracy",
        "torch-pruning GroupMagnitudeImportance, same MACs, no training after either", torch_pruning_program,
    ),
    Row(
        {"technique": "prune", "method": "structured", "sparsity": 0.25}, f"{MINILM}, Hugging Face",
        inputs.minilm_directory, WORDS, inputs.word_pairs, "spearman",
        "torch-pruning GroupMagnitudeImportance, as many neurons", torch_pruning_neurons,
    ),
)  # fmt: skip
