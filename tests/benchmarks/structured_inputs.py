"""A convolutional network and a transformer with labels, large enough for their latency to mean something."""

import json
from pathlib import Path

import torch
from torch import nn
from transformers.models.bert.modeling_bert import BertForSequenceClassification
from transformers.utils import logging

from app.cli.zoo import fetch
from tests.benchmarks.text_training_peers import train
from tests.benchmarks.training_inputs import Split, digits_of, fit
from workers.compression.specs.containers.archives import stored_zip
from workers.compression.specs.steps.finetune import FullFinetune

MINILM = "minilm-l6-hf"
CNN_ROWS, CNN_EPOCHS = 12_000, 3
REVIEW_EPOCHS = 2.0
LENGTH = 32
DIGITS = tuple(range(10))


class Block(nn.Module):
    """Two convolutions with batch norm around which the input is added (He et al., arXiv:1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        self.around = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The same number of images."""
        made = torch.relu(self.first_norm(self.first(images)))
        return torch.relu(self.second_norm(self.second(made)) + self.around(images))


def resnet() -> nn.Sequential:
    """Eight layers in three stages of 32, 64 and 128 channels, on [n, 1, 28, 28]: 36 million MACs a row."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        Block(32, 32, 1), Block(32, 64, 2), Block(64, 128, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def trained_resnet() -> nn.Module:
    """The network after a few minutes on MNIST."""
    torch.manual_seed(0)
    return fit(resnet(), digits_of("train", DIGITS, CNN_ROWS), epochs=CNN_EPOCHS, seed=0)


def write_images_onnx(network: nn.Module, path: Path) -> Path:
    """A network on [n, 1, 28, 28] as ONNX; the exporter folds batch norms."""
    shapes = ({0: torch.export.Dim("batch")},)
    example = (torch.zeros(2, 1, 28, 28),)
    program = torch.onnx.export(
        network.eval(), example, dynamo=True, input_names=["input"], dynamic_shapes=shapes, verbose=False
    )
    if program is None:
        raise RuntimeError("the exporter gave no program")
    program.save(str(path))
    return path


def trained_classifier(split: Split, folder: Path) -> BertForSequenceClassification:
    """all-MiniLM-L6-v2 fine-tuned to tell fresh reviews from rotten ones."""
    logging.set_verbosity_error()
    torch.manual_seed(0)
    network = BertForSequenceClassification.from_pretrained(fetch(MINILM), num_labels=2, attn_implementation="eager")
    rows = [json.loads(line) for line in split.train.read_text("utf-8").splitlines()]
    labelled = [row["text"] for row in rows], [int(row["target"] == "rotten") for row in rows]
    train(network, labelled, FullFinetune(epochs=REVIEW_EPOCHS, batch_size=16, learning_rate=1e-4), folder, 1e-4)
    return network.eval()


def write_classifier_onnx(network: nn.Module, folder: Path, name: str) -> Path:
    """A text classifier as ONNX with its tokenizer, zipped."""
    target = folder / name
    target.mkdir()
    # Two tensors: the exporter would take one of them for both inputs.
    tokens, mask = (torch.ones(2, 11, dtype=torch.long) for _ in range(2))
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    program = torch.onnx.export(
        network.eval(), kwargs={"input_ids": tokens, "attention_mask": mask}, dynamo=True,
        input_names=["input_ids", "attention_mask"], verbose=False,
        dynamic_shapes={"input_ids": sizes, "attention_mask": sizes},
    )  # fmt: skip
    if program is None:
        raise RuntimeError("the exporter gave no program")
    program.save(str(target / "model.onnx"))
    (target / "tokenizer.json").write_bytes((fetch(MINILM) / "tokenizer.json").read_bytes())
    stored_zip(target, folder / f"{name}.zip")
    return folder / f"{name}.zip"
