"""Small students, and how often they answer as their teacher does."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.bert.modeling_bert import BertForSequenceClassification

from tests import trained
from tests.compression.training.attempts import BATCH, Attempt, attempt, opened
from tests.e2e import tiny_bert
from workers.compression.data import open_dataset
from workers.compression.families.model import Array, Model
from workers.compression.specs.containers.archives import stored_zip
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.messages import Data, DatasetFile, ModelFile
from workers.compression.specs.step import Step

NAMED = "mdl_0000000000000000000000STUD"


class Small(nn.Module):
    """64 → width → outputs, with an input of another name than the teacher's."""

    def __init__(self, width: int = 32, outputs: int = 10) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.first = nn.Linear(64, width)
            self.last = nn.Linear(width, outputs)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.last(torch.relu(self.first(pixels)))
        return values


def write_pt2(network: nn.Module, path: Path) -> ModelFile:
    program = torch.export.export(network.eval(), (trained.example_input("mlp"),), dynamic_shapes=BATCH)
    torch.export.save(program, path)
    return ModelFile(path=str(path), format=ModelFormat.PT2)


def write_onnx(network: nn.Module, path: Path) -> ModelFile:
    program = torch.onnx.export(
        network.eval(),
        (trained.example_input("mlp"),),
        dynamo=True,
        input_names=["pixels"],
        output_names=["scores"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    program.save(str(path))
    return ModelFile(path=str(path), format=ModelFormat.ONNX)


def taught(folder: Path, teacher: ModelFile, student: ModelFile | None, data: Data, *recipe: Step) -> Attempt:
    """A recipe whose last step names the student, or that teaches the job's own model."""
    if student is None:
        return attempt(folder, teacher, recipe, data)
    last = type(recipe[-1]).model_validate({**recipe[-1].model_dump(), "student": NAMED})
    return attempt(folder, teacher, (*recipe[:-1], last), data, students={NAMED: student})


def answers(model: Model, file: DatasetFile) -> Array:
    """First outputs over all rows."""
    batches = open_dataset(file).batches(model.inputs, 64, model.tokenizer_file())
    return np.concatenate([model.run(batch.feeds)[0] for batch in batches])


def agreement(student: Model, teacher: ModelFile, file: DatasetFile, scratch: Path) -> float:
    """Share of rows that the two put into one class."""
    theirs = answers(opened(teacher, scratch), file)
    return float(np.mean(answers(student, file).argmax(axis=1) == theirs.argmax(axis=1)))


def other_tokenizer() -> Tokenizer:
    """The words of ``tiny_bert`` under other ids, and one token more per text."""
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"p{level}" for level in reversed(range(tiny_bert.LEVELS))))
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    return made


def write_bert(folder: Path, *, layers: int, width: int, seed: int, tokenizer: Tokenizer | None = None) -> ModelFile:
    """A fresh BERT of ten classes without dropout."""
    config = BertConfig(
        vocab_size=tiny_bert.LEVELS + 4,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=32,
        num_labels=10,
        initializer_range=0.2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertForSequenceClassification(config)
    model.save_pretrained(folder / "original")
    (tokenizer or tiny_bert.tokenizer()).save(str(folder / "original" / "tokenizer.json"))
    stored_zip(folder / "original", folder / "bert.zip")
    return ModelFile(path=str(folder / "bert.zip"), format=ModelFormat.HUGGINGFACE)
