"""How much room uniform weights take, metadata counted."""

from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.uniform import Scheme

_SCALE_BITS = 16
"""Scales and offsets have the precision of float16, which all layouts store them in where it holds them."""


def uniform_bits(blocks: Blocks, bits: int, scheme: Scheme) -> int:
    """Stored bits of a weight: packed integers, and per block a scale and a zero point or offset."""
    rows, columns = blocks.shape
    count = 1
    for along in blocks.counts:
        count *= along
    beside = {"affine": bits, "symmetric": 0, "minmax": _SCALE_BITS}[scheme]
    return rows * columns * bits + count * (_SCALE_BITS + beside)
