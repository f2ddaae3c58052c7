"""A BERT small enough to train in a test: it reads a digit, halved to 4x4 pixels, as words and names it."""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.bert.modeling_bert import BertForSequenceClassification

from tests.trained import digits_split
from workers.compression.specs.containers.archives import stored_zip

LEVELS = 17
SPECIAL = ("[PAD]", "[UNK]", "[CLS]")
TEXT_ROWS = 200


def words(image: np.ndarray) -> list[str]:
    """One word per pixel: ``p0`` (white) to ``p16`` (black)."""
    halved = image.reshape(4, 2, 4, 2).mean(axis=(1, 3)).ravel()
    return [f"p{level}" for level in np.round(halved * (LEVELS - 1)).astype(int)]


def tokenizer() -> Tokenizer:
    """Words to ids, a ``[CLS]`` in front."""
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *(f"p{level}" for level in range(LEVELS))))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 2)])
    return made


def token_ids(images: np.ndarray) -> torch.Tensor:
    return torch.tensor([encoded.ids for encoded in tokenizer().encode_batch([" ".join(words(i)) for i in images])])


@lru_cache
def trained_bert() -> BertForSequenceClassification:
    """Some seconds of training on the real digits."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=LEVELS + len(SPECIAL),
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=32,
        num_labels=10,
        initializer_range=0.2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForSequenceClassification(config)
    images, _, labels, _ = digits_split()
    ids, targets = token_ids(images), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for epoch in range(20):
        for rows in torch.randperm(len(ids), generator=torch.Generator().manual_seed(epoch)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(input_ids=ids[rows]).logits, targets[rows]).backward()
            optimizer.step()
    return model.eval()


def accuracy(model: BertForSequenceClassification, rows: int = TEXT_ROWS) -> float:
    """Share of the first test digits that the model names."""
    _, images, _, labels = digits_split()
    with torch.no_grad():
        predicted = model(input_ids=token_ids(images[:rows])).logits.argmax(1).numpy()
    return float(np.mean(predicted == labels[:rows]))


def write_directory(folder: Path) -> Path:
    """The trained model as people upload it: a zipped directory with config, safetensors and tokenizer."""
    directory = folder / "bert"
    trained_bert().save_pretrained(directory)
    tokenizer().save(str(directory / "tokenizer.json"))
    archive = folder / "bert.zip"
    stored_zip(directory, archive)
    return archive


def write_lines(folder: Path, rows: int = TEXT_ROWS) -> Path:
    """Test digits as labelled text."""
    _, images, _, labels = digits_split()
    path = folder / "digits-as-text.jsonl"
    lines = (
        {"text": " ".join(words(image)), "target": int(label)} for image, label in zip(images, labels, strict=True)
    )
    path.write_text("".join(json.dumps(line) + "\n" for _, line in zip(range(rows), lines, strict=False)))
    return path
