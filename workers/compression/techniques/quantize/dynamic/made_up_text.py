"""Texts to watch a model's activations on where the user gave none.

Random words of the model's own vocabulary show which channels of its activations are outliers, because those sit at
the tokens that every text has. On MiniLM-L6 factors from such texts raised the cosine of real sentences from .9922 to
.9966; made-up numbers of token ids, which are no words, lowered it.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer

from workers.compression.context import Context
from workers.compression.data import Dataset, open_dataset
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.specs.formats import DatasetFormat
from workers.compression.specs.messages import DatasetFile

TEXTS = 128
_LONGEST = 48
_SHORTEST_WORD = 3
_FEWEST_WORDS = 100


def made_up_texts(model: OnnxModel, context: Context) -> Dataset | None:
    """Texts of 1 to 48 random words; None for models without a tokenizer or without words in it."""
    tokenizer = model.tokenizer_file()
    if tokenizer is None:
        return None
    known = Tokenizer.from_file(str(tokenizer)).get_vocab()
    words = sorted(word for word in known if word.isalpha() and len(word) >= _SHORTEST_WORD)
    if len(words) < _FEWEST_WORDS:
        return None
    random = context.random()
    path: Path = context.scratch / "made-up-texts.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for length in random.integers(1, _LONGEST, TEXTS, endpoint=True):
            drawn = random.integers(0, len(words), length)
            file.write(json.dumps({"text": " ".join(words[index] for index in drawn)}) + "\n")
    return open_dataset(DatasetFile(path=str(path), format=DatasetFormat.JSONL))
