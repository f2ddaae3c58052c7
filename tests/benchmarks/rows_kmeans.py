"""Evidence of quantization to codebooks."""

import numpy as np
import onnx
import torch
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from sklearn.cluster import KMeans

from tests.benchmarks import inputs, peers
from tests.benchmarks.rows import MINILM, SYNTHETIC, WORDS, Row

BITS = 4


def onnxruntime_nbits(subject: peers.Subject) -> peers.Figures:
    """onnxruntime's own 4-bit weights, asymmetric in groups of 32; its embeddings stay float."""
    quantizer = MatMulNBitsQuantizer(onnx.load(subject.plain()), block_size=32, is_symmetric=False)
    quantizer.process()
    output = subject.folder / "peer.onnx"
    quantizer.model.save_model_to_file(str(output))
    return peers.judged(subject, output)


def sklearn_kmeans(subject: peers.Subject) -> peers.Figures:
    """scikit-learn's ``KMeans`` per tensor on at most 100,000 of its values, codes packed, saved by torch."""
    weights = torch.load(subject.model, weights_only=True, map_location="cpu")
    stored: dict[str, object] = {}
    cosines: list[float] = []
    for name, tensor in weights.items():
        if not tensor.is_floating_point() or tensor.dim() < 2 or tensor.numel() < 1024:
            stored[name] = tensor
            continue
        values = tensor.numpy().reshape(-1, 1)
        sample = values[:: max(1, len(values) // 100_000)]
        found = KMeans(1 << BITS, n_init=4, random_state=0).fit(sample)
        codes = found.predict(values).astype(np.uint8)
        stored[name] = (torch.from_numpy(codes[::2] | (np.resize(codes[1::2], codes[::2].shape) << BITS)),)
        stored[f"{name}.codebook"] = torch.from_numpy(found.cluster_centers_)
        restored = torch.from_numpy(found.cluster_centers_[codes].reshape(-1)).double()
        cosines.append(torch.cosine_similarity(tensor.flatten().double(), restored, dim=0).item())
    output = subject.folder / "peer.pth"
    torch.save(stored, output)
    return peers.Figures(output.stat().st_size, min(cosines), min(cosines))


KMEANS = {"technique": "quantize", "method": "kmeans", "bits": BITS}
ROWS = (
    Row(
        KMEANS | {"scale_group": 32}, f"{MINILM}, ONNX, codebook and scales", inputs.minilm_onnx, WORDS,
        inputs.word_pairs, "spearman", "onnxruntime MatMulNBits, 4 bits, groups of 32", onnxruntime_nbits,
    ),
    Row(
        KMEANS | {"scale_group": 16}, "CREPE tiny, state dict", inputs.crepe, SYNTHETIC, None, "fidelity",
        "scikit-learn KMeans per tensor, codes packed, torch.save", sklearn_kmeans,
    ),
)  # fmt: skip
