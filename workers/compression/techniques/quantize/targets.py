"""Which integers a target's instructions multiply exactly, and fast."""

from dataclasses import dataclass

from workers.compression.environment import cpu_flags
from workers.compression.quantization.uniform import Grid, UniformWeight
from workers.compression.specs.job import Target

_EXACT = frozenset({"avx512_vnni", "avx_vnni", "avxvnni", "asimddp", "i8mm", "amx_int8"})
_EXACT_TARGETS = frozenset({"cpu-vnni", "cpu-arm64"})


@dataclass(frozen=True)
class WeightKind:
    """Integers for weights that are multiplied as such.

    Args:
        grid: What they are rounded to.
        is_unsigned: Whether they are stored as uint8 around a zero point where the grid is signed: full range that
            does not saturate on any x86, at the price of a slower kernel.
    """

    grid: Grid
    is_unsigned: bool = False

    def stored(self, found: UniformWeight) -> UniformWeight:
        """``found`` as it is stored."""
        return found.unsigned() if self.is_unsigned else found


def multiplies_exactly(target: Target) -> bool:
    """Whether the target sums products of 8-bit numbers in 32 bits.

    AVX2 without VNNI adds pairs of products in 16 bits: full-range signed weights saturate there, which onnxruntime
    does not report (relative error 0.147 instead of 0.012 on a Gaussian layer).
    """
    if target.hardware == "auto":
        return bool(cpu_flags() & _EXACT)
    return target.hardware in _EXACT_TARGETS


def precise_weights(target: Target) -> WeightKind:
    """All 8 bits; on AVX2 without VNNI unsigned, where MiniLM-L6 ran 1.3 times as fast as in float at batch 8."""
    return WeightKind(Grid(signed=True), is_unsigned=not multiplies_exactly(target))


def fast_weights(target: Target) -> WeightKind:
    """Signed; on AVX2 without VNNI of 7 bits so that sums do not saturate, 1.6 times as fast as float on MiniLM-L6."""
    return WeightKind(Grid(signed=True, bits=8 if multiplies_exactly(target) else 7))


def weights_for(target: Target, scheme: str) -> WeightKind:
    """What a step's ``scheme`` means on a target: ``auto`` is precise, ``symmetric`` fast, ``affine`` uint8."""
    if scheme == "affine":
        return WeightKind(Grid(signed=False))
    return precise_weights(target) if scheme == "auto" else fast_weights(target)
