"""How much room uniform weights take, metadata counted."""

from math import prod

from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.uniform import Scheme, UniformWeight

_SCALE_BITS = 16
"""Scales and offsets have the precision of float16 where its range holds them."""


def uniform_bits(
    blocks: Blocks, bits: int, scheme: Scheme, *, scale_bits: int = _SCALE_BITS, zero_bits: int | None = None
) -> int:
    """Stored bits of a weight: packed integers, and per block a scale and a zero point or offset.

    Args:
        scale_bits: Of a scale or an offset.
        zero_bits: Of a zero point; as many as an integer has where not given.
    """
    beside = {"affine": bits if zero_bits is None else zero_bits, "symmetric": 0, "minmax": scale_bits}[scheme]
    return prod(blocks.shape) * bits + prod(blocks.counts) * (scale_bits + beside)


def scheme_of(form: UniformWeight) -> Scheme:
    """How a form's integers stand for values."""
    if form.parameters.offset is not None:
        return "minmax"
    return "symmetric" if form.parameters.zero is None else "affine"
