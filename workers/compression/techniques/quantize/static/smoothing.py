"""Moves outliers of activation channels into the weights that read them (SmoothQuant, arXiv:2211.10438).

An activation with a few huge channels spends its 8 bits on those. Dividing each channel by a factor and multiplying the
weight's rows by it changes nothing in exact arithmetic and makes both easier to quantize.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

STRENGTH = 0.5
_RANGE = (1e-2, 1e4)


def smoothing_factors(channels: Floats, weights: list[Floats]) -> Floats:
    """Factors to divide an activation's channels by.

    Args:
        channels: Largest magnitude per channel of the activation.
        weights: Matrices that read the activation, its channels along their first axis.
    """
    rows = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    tiny = np.float32(1e-5)
    factors = np.maximum(channels, tiny) ** STRENGTH / np.maximum(rows, tiny) ** (1.0 - STRENGTH)
    centred = factors / np.exp(np.mean(np.log(factors)))
    clipped: Floats = np.clip(centred, *_RANGE).astype(np.float32)
    return clipped
