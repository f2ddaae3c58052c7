"""Small models of every served class of transformers, with fresh weights."""

import json
import zipfile
from pathlib import Path
from typing import Any

import torch

from workers.compression.families.torch.architectures import Architecture

DEPTH = 2
SMALL = {
    **dict.fromkeys(("hidden_size", "dim", "n_embd", "embedding_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "n_layer"), DEPTH),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head", "num_key_value_heads"), 4),
    **dict.fromkeys(("intermediate_size", "hidden_dim"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 40),
    **dict.fromkeys(("bos_token_id", "cls_token_id"), 1),
    **dict.fromkeys(("eos_token_id", "sep_token_id"), 2),
    "vocab_size": 96,
    "head_dim": 8,
    "pad_token_id": 0,
}


def write_small(architecture: Architecture, path: Path, *, files: dict[str, Any] | None = None, **entries: Any) -> Path:
    """A model of a served class as a zipped folder, with ``files`` beside it."""
    torch.manual_seed(0)
    served = architecture.load_class()
    declared = served.config_class.__annotations__
    values = {key: value for key, value in (SMALL | entries).items() if key in declared}
    folder = path.with_suffix("")
    served(served.config_class(**values)).save_pretrained(folder)
    for name, content in (files or {}).items():
        (folder / name).write_text(json.dumps(content))
    with zipfile.ZipFile(path, "w") as made:
        for file in sorted(folder.iterdir()):
            made.write(file, file.name)
    return path
