"""Evidence of pruning that looks at data, and what torch makes of the same network."""

import torch
from torch.nn.utils import prune
from transformers.models.bert.modeling_bert import BertModel

from app.cli.zoo import fetch
from tests.benchmarks import inputs, peers
from tests.benchmarks.rows import MINILM, WORDS, Row

_PRUNE = {"technique": "prune", "exclude": ["*embeddings*"], "sparsity": 0.5}


def torch_layer_magnitude(subject: peers.Subject) -> peers.Figures:
    """``torch.nn.utils.prune.l1_unstructured`` on every linear layer of the encoder, same sparsity."""
    model = BertModel.from_pretrained(fetch("minilm-l6-hf")).eval()
    for layer in model.encoder.modules():
        if isinstance(layer, torch.nn.Linear):
            prune.l1_unstructured(layer, "weight", amount=float(str(subject.step["sparsity"])))
            prune.remove(layer, "weight")
    return peers.minilm_against(subject, model)


ROWS = tuple(
    Row(
        {**_PRUNE, "method": method, **fields}, f"{MINILM}, Hugging Face", inputs.minilm_directory, WORDS,
        inputs.word_pairs, "spearman", "torch.nn.utils.prune.l1_unstructured, same layers and sparsity",
        torch_layer_magnitude,
    )
    for method, fields in (("wanda", {"fit": True}), ("sparsegpt", {}), ("taylor", {}), ("fisher", {}))
)  # fmt: skip
