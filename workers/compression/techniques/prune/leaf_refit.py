"""New leaf values for the trees that stay, so that together they come closer to the whole ensemble.

A forest is linear in its leaf values. With ridge regression towards the values as they are, the correction is a
kernel smoother whose kernel counts the trees in which two rows share a leaf; it is solved over rows and not over
leaves, and its strength is chosen by the exact leave-one-out error.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Leaves = npt.NDArray[np.int64]

_STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def leaf_corrections(leaves: Leaves, residual: Floats) -> Floats | None:
    """What each row asks its leaves to add; a leaf's correction is the sum over its rows.

    Args:
        leaves: ``[rows, trees]``, the leaf that each row falls into.
        residual: ``[rows, outputs]``, what the trees lack in sum.

    Returns:
        ``[rows, outputs]``, or None if no correction lowers the leave-one-out error.
    """
    kernel = np.zeros((len(leaves), len(leaves)))
    for column in leaves.T:
        kernel += column[:, None] == column[None, :]
    values, vectors = np.linalg.eigh(kernel)
    rotated = vectors.T @ residual
    best, lowest = None, float(np.mean(residual**2))
    for strength in _STRENGTHS:
        inverse = 1.0 / (np.maximum(values, 0.0) + strength * leaves.shape[1])
        dual = (vectors * inverse) @ rotated
        error = float(np.mean((dual / ((vectors**2) @ inverse)[:, None]) ** 2))
        if error < lowest:
            best, lowest = dual, error
    return best
