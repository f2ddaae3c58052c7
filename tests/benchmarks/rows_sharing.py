"""Evidence of sharing inside a model: repeated layers, and one codebook for all layers."""

from pathlib import Path

from tests.benchmarks import inputs
from tests.benchmarks.rows import MINILM, SYNTHETIC, WORDS, Row
from tests.benchmarks.rows_kmeans import onnxruntime_nbits
from tests.benchmarks.sharing_inputs import onnx_ir_peer, repeating_minilm


def _repeating(folder: Path) -> Path:
    return repeating_minilm(folder / "repeats.onnx")


ROWS = (
    Row(
        {"technique": "share", "method": "tie"}, f"{MINILM} with blocks repeated in pairs, ONNX", _repeating, SYNTHETIC,
        None, "fidelity", "onnx_ir DeduplicateInitializersPass, as torch's exporter runs it, without its limit",
        onnx_ir_peer,
    ),
    Row(
        {"technique": "share", "method": "cluster", "bits": 4, "scale_group": 32}, f"{MINILM}, ONNX, one codebook",
        inputs.minilm_onnx, WORDS, inputs.word_pairs, "spearman",
        "onnxruntime MatMulNBits, 4 bits, groups of 32", onnxruntime_nbits,
    ),
)  # fmt: skip
