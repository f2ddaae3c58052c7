"""Archives against their bars: ``python -m tests.benchmarks.archive``.

Weights of the zoo in float32 and rounded to bfloat16, and codes of clustered and pruned weights. Times are the
processor's, one thread, the best of a few runs; nothing is written to disk while the clock runs. ZipNN builds from
source only, so what it published stands beside ours, not a run of it.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import zstandard
from onnx import numpy_helper

from app.cli.zoo import fetch
from workers.compression.archive import codecs
from workers.compression.coding import gaps, symbols

PUBLISHED = {"bfloat16": 1.51, "float32": 1.20}
DECODE_MB = 800.0
REPEATS = 5
PIECE = 16 << 20


def main() -> int:
    """Prints both tables; 0 if every bar is met."""
    weights = _weights()
    met = [_floats(name, words) for name, words in _as_words(weights).items()]
    met += [_entropy(name, chosen) for name, chosen in _as_symbols(weights).items()]
    return 0 if all(met) else 1


def _weights() -> npt.NDArray[np.float32]:
    """Every float32 matrix of the zoo's transformer, one after the other, up to one block of an archive."""
    graph = onnx.load(next(fetch("minilm-l6-onnx").rglob("*.onnx"))).graph
    found = [
        numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT
    ]
    inside = sorted((array.reshape(-1) for array in found if array.ndim == 2), key=len)
    return np.concatenate(inside)[: PIECE // 4]


def _as_words(weights: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.unsignedinteger]]:
    """The bits of the weights as they are, and rounded to the nearest bfloat16, ties to even."""
    bits = weights.view("<u4")
    rounded = bits + 0x7FFF + (bits >> 16 & 1)
    return {"float32": bits, "bfloat16": (rounded >> 16).astype("<u2")}


def _floats(name: str, words: npt.NDArray[np.unsignedinteger]) -> bool:
    block = words.tobytes()
    codec, data = codecs.encode(block, words.itemsize)
    ratio, speed = len(block) / len(data), _speed(block, lambda: codecs.decode(codec, memoryview(data), len(block)))
    print(f"{name}, {len(block):,} bytes: ours ({codec.name.lower()}) {ratio:.3f}x, decodes {speed:,.0f} MB/s")
    planes = np.ascontiguousarray(words.view(np.uint8).reshape(-1, words.itemsize).T).tobytes()
    for title, content, level in (
        ("zstd -3", block, 3),
        ("zstd -19", block, 19),
        ("byte planes, zstd -3", planes, 3),
    ):
        coded = zstandard.ZstdCompressor(level=level).compress(content)
        speed_of = _speed(content, lambda coded=coded: zstandard.ZstdDecompressor().decompress(coded))
        print(f"  {title}: {len(content) / len(coded):.3f}x, {speed_of:,.0f} MB/s")
    exponents = np.bincount((words >> (words.itemsize * 8 - 9) & 0xFF).astype(np.int64))
    bits = 8 * words.itemsize
    print(f"  with exponents at their entropy and the rest as it is: {bits / (bits - 8 + _entropy_of(exponents)):.3f}x")
    print(f"  ZipNN, published on other models: {PUBLISHED[name]}x")
    return _bar(f"ratio at least {PUBLISHED[name]}x", ratio >= PUBLISHED[name]) & _bar(
        f"decodes at least {DECODE_MB:g} MB/s on one core", speed >= DECODE_MB
    )


def _as_symbols(weights: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.uint8]]:
    """Codes of 16 intervals of equal probability and of equal width, and the steps between the largest tenth."""
    order = np.sort(weights[::16])
    even = np.searchsorted(order[np.arange(1, 16) * order.size // 16], weights).astype(np.uint8)
    scale = float(np.abs(weights).max())
    uniform = np.clip(np.round(weights / scale * 32) + 32, 0, 64).astype(np.uint8)
    kept = np.flatnonzero(np.abs(weights) > np.quantile(np.abs(order), 0.9))
    steps = gaps.steps_to(gaps.entries(kept, weights.size, 8))
    return {"16 codes": even, "uniform codes": uniform, "steps at 10 % density": steps}


def _entropy(name: str, chosen: npt.NDArray[np.uint8]) -> bool:
    counts = np.bincount(chosen)
    entropy = _entropy_of(counts) * chosen.size / 8
    coded = symbols.encode(chosen)
    assert coded is not None
    speed = _speed(chosen.tobytes(), lambda: symbols.decode(coded, chosen.dtype, chosen.size))
    over = len(coded) / entropy - 1
    zstd = len(zstandard.ZstdCompressor(level=19).compress(chosen.tobytes()))
    print(
        f"{name}: {len(coded):,} bytes, {over:+.2%} over their entropy, decodes {speed:,.0f} million symbols/s; "
        f"zstd -19 {zstd / entropy - 1:+.2%}"
    )
    return _bar("at most 2 % over the entropy", over <= 0.02)


def _entropy_of(counts: npt.NDArray[np.int64]) -> float:
    """Bits a symbol."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def _speed(content: bytes, decode: Callable[[], object]) -> float:
    """Million decoded bytes a second of processor time."""
    best = float("inf")
    for _ in range(REPEATS):
        started = time.process_time()
        decode()
        best = min(best, time.process_time() - started)
    return len(content) / best / 1e6


def _bar(text: str, held: bool) -> bool:
    print(f"  bar: {text}: {'met' if held else 'missed'}")
    return held


if __name__ == "__main__":
    sys.exit(main())
