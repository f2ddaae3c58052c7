"""Evidence of weight-only quantization of networks."""

from tests.benchmarks import inputs, weight_only_peers
from tests.benchmarks.rows import MINILM, WORDS, Row

_STEP = {"technique": "quantize", "method": "weight_only"}

ROWS = (
    Row(
        {**_STEP, "algorithm": "gptq", "group_size": 64}, f"{MINILM}, ONNX", inputs.minilm_onnx, WORDS,
        inputs.word_pairs, "spearman", "onnxruntime MatMulNBits HQQ, groups of 32", weight_only_peers.ort_hqq,
    ),
)  # fmt: skip
