"""Moves the mean error of a layer's output into its bias (Nagel et al., arXiv:1906.04721).

Rounding errors of weights add up in one direction where inputs have a mean, as behind ReLU or GELU, and the layers
after see a shifted distribution. The shift is measured on calibration rows rather than derived from batch norms.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

WORTHWHILE = 0.25
"""Share of the squared error that a shift has to remove on rows that it was not measured on; less is chance."""


def mean_shift(exact: Floats, rounded: Floats, channel_axis: int) -> Floats | None:
    """What to add to each channel of a layer's output.

    Args:
        exact: Outputs of the layer on some rows, rows along axis 0.
        rounded: The same once the layer is quantized.
        channel_axis: Of both.

    Returns:
        Shape (channels,); None where what the first half of the rows suggests does not help the second.
    """
    error = np.moveaxis(exact.astype(np.float64) - rounded, channel_axis, -1)
    half = len(error) // 2
    if not half:
        return None
    first, second = (part.reshape(-1, error.shape[-1]) for part in (error[:half], error[half:]))
    if np.square(second - first.mean(axis=0)).sum() > (1.0 - WORTHWHILE) * np.square(second).sum():
        return None
    shift: Floats = error.reshape(-1, error.shape[-1]).mean(axis=0).astype(np.float32)
    return shift
