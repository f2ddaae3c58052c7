"""Which integer grid a target's instructions multiply exactly."""

from workers.compression.environment import cpu_flags
from workers.compression.quantization.uniform import Grid
from workers.compression.specs.job import Target

_EXACT = frozenset({"avx512_vnni", "avx_vnni", "avxvnni", "asimddp", "i8mm", "amx_int8"})
_EXACT_TARGETS = frozenset({"cpu-vnni", "cpu-arm64"})


def multiplies_exactly(target: Target) -> bool:
    """Whether the target sums products of 8-bit numbers in 32 bits.

    AVX2 without VNNI adds pairs of products in 16 bits: full-range signed weights saturate there, which onnxruntime
    does not report (relative error 0.147 instead of 0.012 on a Gaussian layer).
    """
    if target.hardware == "auto":
        return bool(cpu_flags() & _EXACT)
    return target.hardware in _EXACT_TARGETS


def weight_grid(target: Target, scheme: str) -> Grid:
    """The grid for weights that are multiplied as integers.

    Args:
        scheme: ``symmetric`` (int8; one bit less where it would saturate), ``affine`` (uint8), or ``auto``: the more
            precise of the two on this target.
    """
    exact = multiplies_exactly(target)
    if scheme == "affine" or (scheme == "auto" and not exact):
        return Grid(signed=False)
    return Grid(signed=True, bits=8 if exact else 7)
