"""Text to token ids with the tokenizer that came with the model."""

from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from workers.compression.datasets.source import Array, Arrays, Rows
from workers.compression.specs.errors import DatasetMismatch, InvalidModel
from workers.compression.specs.job import TextPreprocessing
from workers.compression.specs.messages import Port


class Tokens:
    """Makes token inputs, padded to the longest row of a batch or to the model's fixed length."""

    def __init__(self, tokenizer: Path | None, inputs: tuple[Port, ...], preprocessing: TextPreprocessing) -> None:
        if tokenizer is None:
            raise DatasetMismatch(
                "The dataset is text, but the model came without a tokenizer.json.",
                hint="Upload the model as an archive together with its tokenizer.json.",
            )
        self._inputs = inputs
        self._tokenizer = _load(tokenizer)
        fixed = [port.shape[1] for port in inputs if isinstance(port.shape[1], int) and port.shape[1] > 0]
        length = int(fixed[0]) if fixed else None
        pad = self._tokenizer.padding or {}
        self._tokenizer.enable_padding(
            length=length,
            pad_id=pad.get("pad_id", self._tokenizer.token_to_id("[PAD]") or 0),
            pad_token=pad.get("pad_token", "[PAD]"),
            direction=pad.get("direction", "right"),
        )
        self._tokenizer.enable_truncation(max_length=length or preprocessing.max_length)

    def encode(self, texts: list[str] | list[tuple[str, str]]) -> Arrays:
        """The model's inputs for ``texts``; pairs become one sequence each."""
        encoded = self._tokenizer.encode_batch(texts)
        return {port.name: _column(port.name, encoded).astype(port.dtype) for port in self._inputs}

    def lengths(self, texts: list[str]) -> Rows:
        """How many tokens each text has once cut to the longest that is fed, padding left out."""
        encoded = self._tokenizer.encode_batch(texts)
        return np.array([sum(row.attention_mask) for row in encoded], dtype=np.int64)


def _load(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        raise InvalidModel("The model's tokenizer.json cannot be read.", reason="tokenizer_invalid") from error


def _column(name: str, encoded: list[Encoding]) -> Array:
    rows = {
        "input_ids": [row.ids for row in encoded],
        "attention_mask": [row.attention_mask for row in encoded],
        "token_type_ids": [row.type_ids for row in encoded],
        "position_ids": [list(range(len(row.ids))) for row in encoded],
    }[name]
    return np.array(rows, dtype=np.int64)
