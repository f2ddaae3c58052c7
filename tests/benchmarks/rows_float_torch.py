"""The evidence's rows of torch models in narrower floats, and the peers they are held against."""

import torch
from torchao.quantization import Float8WeightOnlyConfig, quantize_
from transformers.models.bert.modeling_bert import BertModel

from app.cli.zoo import fetch
from tests.benchmarks import inputs, peers
from tests.benchmarks.rows import MINILM, WORDS, Row

BFLOAT16 = {"technique": "quantize", "method": "bfloat16"}
FLOAT8 = {"technique": "quantize", "method": "float8"}


def transformers_bfloat16(subject: peers.Subject) -> peers.Figures:
    """transformers' own ``dtype=torch.bfloat16``, which it also computes in."""
    return peers.minilm_against(subject, BertModel.from_pretrained(fetch("minilm-l6-hf"), dtype=torch.bfloat16).eval())


def torchao_float8(subject: peers.Subject) -> peers.Figures:
    """torchao's float8 weight-only configuration on the eager model; it leaves tables in float32."""
    quantized = BertModel.from_pretrained(fetch("minilm-l6-hf")).eval()
    quantize_(quantized, Float8WeightOnlyConfig())
    return peers.minilm_against(subject, quantized)


ROWS = (
    Row(
        BFLOAT16, f"{MINILM}, Hugging Face", inputs.minilm_directory, WORDS, inputs.word_pairs, "spearman",
        "transformers, dtype=bfloat16", transformers_bfloat16,
    ),
    Row(
        FLOAT8, f"{MINILM}, Hugging Face", inputs.minilm_directory, WORDS, inputs.word_pairs, "spearman",
        "torchao Float8WeightOnly, torch.save", torchao_float8,
    ),
)  # fmt: skip
