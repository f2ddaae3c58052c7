"""Half-quadratic quantization: zero points and steps fitted to what is left without outliers (Badri and Shaji, 2023).

A block's errors, in steps, are split in two: what a norm with an exponent below one sets aside as outliers, and a rest
for which the best zero point is a mean and the best step a quotient. Unlike in the paper, zero points of the affine
scheme stay integers, so that every layout can hold them, and the step is fitted too. Of all states on the way each
block keeps the one of least squared error, so it never ends worse than the range that it started from.
"""

import numpy as np
import numpy.typing as npt

from workers.compression.quantization.range_search import RangeSearch

Floats = npt.NDArray[np.float32]

_EXPONENT = 0.7
_ROUNDS = 12
_SHARPNESS = 1.0
_SHARPENING = 1.1
"""Each round sets aside less: the factor by which ``_SHARPNESS`` grows."""

_SMALLEST_ERROR = np.float32(1e-6)


def improve(search: RangeSearch) -> None:
    """Improves the best parameters that ``search`` has found.

    Args:
        search: Has tried at least one range.
    """
    smallest, largest = (np.float32(limit) for limit in search.grid.limits)
    sharpness = _SHARPNESS
    for _ in range(_ROUNDS):
        moved = _moved(search, sharpness)
        if search.scheme == "minmax":
            search.try_parameters(search.best.scale, search.best.zero, moved)
        elif search.scheme == "affine":
            for rounded in (np.floor(moved), np.ceil(moved)):
                search.refit(np.clip(rounded, smallest, largest))
        search.refit()
        sharpness *= _SHARPENING


def _moved(search: RangeSearch, sharpness: float) -> Floats:
    """Where the zero points, or with the scheme ``minmax`` the offsets, are best once outliers are set aside."""
    best = search.best
    found = np.empty_like(best.scale)
    for part in search.parts():
        blocks, steps = search.blocks.part(part), search.steps(part)
        scale, offset = best.scale[part], best.offset[part]
        lost = (blocks.values - offset) / scale - steps
        rest = lost - _outliers(lost, sharpness)
        one = np.ones_like(rest)
        shift = (blocks.inner(rest, one) / blocks.inner(one, one))[:, None]
        found[part] = offset + shift * scale if search.scheme == "minmax" else best.zero[part] - shift
    return found


def _outliers(lost: Floats, sharpness: float) -> Floats:
    """The generalised soft threshold of the norm's proximal operator, as in the paper's equation 5."""
    size = np.maximum(np.abs(lost), _SMALLEST_ERROR)
    kept = np.maximum(size - size ** np.float32(_EXPONENT - 1) / np.float32(sharpness), 0)
    return np.asarray(np.copysign(kept, lost), np.float32)
