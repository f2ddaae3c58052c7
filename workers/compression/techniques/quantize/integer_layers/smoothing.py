"""Moves outliers of activation channels into the weights that read them (SmoothQuant, arXiv:2211.10438).

An activation with a few huge channels spends its 8 bits on those. Dividing each channel by a factor and multiplying the
weight's rows by it changes nothing in exact arithmetic and makes both easier to quantize.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

STRENGTHS = (0.5, 0.65, 0.8)
"""How much of the difficulty moves into the weights; which is best differs from layer to layer."""

_RANGE = (1e-2, 1e4)


def smoothing_factors(channels: Floats, weights: list[Floats], strength: float) -> Floats:
    """Factors to divide an activation's channels by.

    Args:
        channels: Largest magnitude per channel of the activation.
        weights: Matrices that read the activation, its channels along their first axis.
        strength: One of ``STRENGTHS``.
    """
    rows = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    tiny = np.float32(1e-5)
    factors = np.maximum(channels, tiny) ** strength / np.maximum(rows, tiny) ** (1.0 - strength)
    centred = factors / np.exp(np.mean(np.log(factors)))
    clipped: Floats = np.clip(centred, *_RANGE).astype(np.float32)
    return clipped
