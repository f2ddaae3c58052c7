"""Weights as 8-bit floats with scales."""

import numpy as np

from workers.compression.families.weights import FloatForm, Floats, Weight
from workers.compression.quantization.narrow_floats import FloatType, rounded, scales_for
from workers.compression.specs.errors import NumericalFailure
from workers.compression.specs.steps.quantize import Float8Quantize

SMALLEST_WEIGHT = 1024
"""Scales and nodes would eat what rounding fewer elements saves."""


def as_float8(weight: Weight, matrix: Floats, spec: Float8Quantize) -> FloatForm:
    """Rounds a weight.

    Args:
        matrix: Shape (outputs, inputs).

    Raises:
        NumericalFailure: It holds NaN or infinity.
    """
    if not np.isfinite(matrix).all():
        raise NumericalFailure(
            f"{weight.name} of {weight.layer} holds values that are not finite.",
            hint="Repair the model, or exclude the layer.",
        )
    dtype: FloatType = "float8_e4m3fn" if spec.variant == "e4m3" else "float8_e5m2"
    scale = scales_for(matrix, dtype, spec.granularity)
    return FloatForm(rounded(matrix / scale, dtype), dtype, scale)
