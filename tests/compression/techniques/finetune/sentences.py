"""Small fresh transformers as people upload them, and sentences of three kinds that they can learn to tell apart."""

import json
from pathlib import Path

import numpy as np
import torch
from transformers.modeling_utils import PreTrainedModel
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.bert.modeling_bert import BertForSequenceClassification, BertModel
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaModel

from tests.e2e import tiny_bert
from workers.compression.specs.containers.archives import stored_zip
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import Data, DatasetFile, ModelFile

KINDS = ("dark", "dim", "light")
WORDS, ROWS = 8, 150


def write_bert(folder: Path, classes: int | None = None) -> ModelFile:
    """A classifier, or without ``classes`` hidden states; dropout is what BERT's configuration says: 0.1.

    What it is zipped from stays in ``folder / "original"``.
    """
    config = BertConfig(
        vocab_size=tiny_bert.LEVELS + len(tiny_bert.SPECIAL),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
        num_labels=classes or 2,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return _written(BertModel(config) if classes is None else BertForSequenceClassification(config), folder)


def write_llama(folder: Path) -> ModelFile:
    """A decoder's hidden states; its configuration does not say what padding looks like, as those of most do not."""
    config = LlamaConfig(
        vocab_size=tiny_bert.LEVELS + len(tiny_bert.SPECIAL),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
        initializer_range=0.2,
        eos_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return _written(LlamaModel(config), folder)


def _written(model: PreTrainedModel, folder: Path) -> ModelFile:
    model.save_pretrained(folder / "original")
    tiny_bert.tokenizer().save(str(folder / "original" / "tokenizer.json"))
    stored_zip(folder / "original", folder / "model.zip")
    return ModelFile(path=str(folder / "model.zip"), format=ModelFormat.HUGGINGFACE)


def write_sentences(folder: Path, written: DatasetFormat = DatasetFormat.NPZ, kinds: tuple[str, ...] = KINDS) -> Data:
    """Sentences of pixels of neighbouring levels, as text or as ids, labelled with the names of their kinds."""
    random = np.random.default_rng(0)
    labels = random.integers(0, len(kinds), ROWS)
    levels = random.integers(0, tiny_bert.LEVELS // len(KINDS), (ROWS, WORDS)) + 6 * labels[:, None]
    texts = [" ".join(f"p{level}" for level in row) for row in levels]
    names = [kinds[label] for label in labels]
    path = folder / f"sentences.{written.value}"
    if written is DatasetFormat.JSONL:
        rows = ({"text": text, "target": name} for text, name in zip(texts, names, strict=True))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        np.savez(path, **ids(texts), target=np.array(names))
    whole = DatasetFile(path=str(path), format=written)
    parts = {"train": (0.0, 0.6), "evaluation": (0.6, 1.0)}
    return Data(**{role: whole.model_copy(update={"part": part}) for role, part in parts.items()})


def ids(texts: list[str]) -> dict[str, np.ndarray]:
    """What a BERT reads; the mask is all ones, since all sentences are equally long."""
    found = np.array([encoded.ids for encoded in tiny_bert.tokenizer().encode_batch(texts)])
    return {"input_ids": found, "attention_mask": np.ones_like(found), "token_type_ids": np.zeros_like(found)}
