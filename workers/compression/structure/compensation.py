"""Weights that make up for inputs which are no longer there, as well as the inputs that stay can."""

import numpy as np
import numpy.typing as npt
import scipy.linalg

from workers.compression.families.weights import Floats

DAMPING = 1e-3
"""Share of the mean input energy added to every input's, so that inputs seen to agree are not told apart by noise."""

_LEAST = 1e-30
"""Of inputs that never have any energy."""


def without_columns(matrix: Floats, gone: npt.NDArray[np.bool_], gram: Floats | None) -> Floats:
    """A layer's matrix with zeros in some columns.

    With ``gram`` the other columns become those whose outputs differ least from the old ones on the inputs behind it:
    of all B, W E[x xₛᵀ] (E[xₛ xₛᵀ] + λ)⁻¹ has the least squared error (He et al., arXiv:1707.06168, section 3.1).

    Args:
        matrix: Shape (outputs, inputs).
        gone: Which inputs are not there.
        gram: Of the inputs, shape (inputs, inputs).
    """
    result = np.array(matrix)
    result[:, gone] = 0.0
    if gram is None or gone.all() or not np.isfinite(gram).all():
        return result
    kept = ~gone
    inner = gram[np.ix_(kept, kept)].astype(np.float64)
    inner[np.diag_indices_from(inner)] += max(DAMPING * float(np.trace(inner)) / len(inner), _LEAST)
    lost = matrix[:, gone].astype(np.float64) @ gram[np.ix_(gone, kept)]
    result[:, kept] += scipy.linalg.solve(inner, lost.T, assume_a="pos").T.astype(np.float32)
    return result
