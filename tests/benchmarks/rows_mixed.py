"""Evidence of mixed precision."""

from tests.benchmarks import inputs, weight_only_peers
from tests.benchmarks.rows import MINILM, WORDS, Row

MIXED = {"technique": "quantize", "method": "mixed", "average_bits": 4.5}

ROWS = (
    Row(
        MIXED, f"{MINILM}, ONNX", inputs.minilm_onnx, WORDS, inputs.word_pairs, "spearman",
        "onnxruntime MatMulNBits HQQ, groups of 32", weight_only_peers.ort_hqq,
    ),
)  # fmt: skip
