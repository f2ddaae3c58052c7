"""Prunes a BERT encoder's linear layers with llm-compressor; only for llm-compressor's own environment.

    python peer_scripts/llmcompressor_prune.py MODEL FEEDS OUTPUTS PATHS

MODEL is a Hugging Face directory; FEEDS holds the inputs as arrays, those of ``calibration/`` for pruning and all
others to run. PATHS are by name a modifier, its fields and the pipeline, in JSON. OUTPUTS gets the hidden states of
each path and kind of row, and the share of zeros in each linear layer of the encoder.
"""

import json
import sys

import numpy as np
import torch
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
from transformers import BertModel

BATCH_ROWS = 8
MODIFIERS = {"wanda": WandaPruningModifier, "sparsegpt": SparseGPTModifier}


def main() -> None:
    folder, feeds, outputs, paths = sys.argv[1:]
    with np.load(feeds) as loaded:
        arrays = {name: loaded[name] for name in loaded.files}
    kinds = dict.fromkeys(name.partition("/")[0] for name in arrays)
    rows = {
        kind: {name.partition("/")[2]: values for name, values in arrays.items() if name.startswith(f"{kind}/")}
        for kind in kinds
    }
    made = {}
    for name, wanted in json.loads(paths).items():
        model = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
        recipe = MODIFIERS[wanted["modifier"]](**wanted["fields"])
        oneshot(
            model=model,
            dataset=calibration(rows["calibration"]),
            recipe=recipe,
            pipeline=wanted["pipeline"],
            sequential_targets=["BertLayer"],
        )
        for kind in kinds:
            made[f"{name}/{kind}"] = hidden_states(model, rows[kind])
        linear = [layer.weight for layer in model.encoder.modules() if isinstance(layer, torch.nn.Linear)]
        made[f"{name}/zeros"] = np.array([float((weight == 0).float().mean()) for weight in linear])
    np.savez(outputs, **made)


def calibration(rows: dict[str, np.ndarray]) -> torch.utils.data.DataLoader:
    """Row by row without padding, of which its statistics would take note."""
    lengths = rows["attention_mask"].sum(axis=1)
    cut = [
        {name: torch.tensor(values[index, :length]) for name, values in rows.items()}
        for index, length in enumerate(lengths)
    ]
    return torch.utils.data.DataLoader(cut, batch_size=1)


@torch.inference_mode()
def hidden_states(model: BertModel, rows: dict[str, np.ndarray]) -> np.ndarray:
    count = len(rows["input_ids"])
    parts = [
        {name: torch.tensor(values[start : start + BATCH_ROWS]) for name, values in rows.items()}
        for start in range(0, count, BATCH_ROWS)
    ]
    return np.concatenate([model(**part).last_hidden_state.numpy() for part in parts])


if __name__ == "__main__":
    main()
