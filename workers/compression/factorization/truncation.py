"""A matrix as a product of two thinner ones, truncated where real inputs notice it least."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg

Floats = npt.NDArray[np.float32]

_SMALLEST_ENERGY = 1e-6
"""Of the mean, added to every direction of the inputs; without it what was never seen would be free to change."""


@dataclass(frozen=True)
class Factors:
    """A matrix (outputs, inputs) as ``left @ right``; shapes (outputs, rank) and (rank, inputs)."""

    left: Floats
    right: Floats

    @property
    def rank(self) -> int:
        """Values that pass between the two."""
        return len(self.right)

    def product(self) -> Floats:
        """The matrix that they stand for."""
        return self.left @ self.right


class Decomposition:
    """All truncations of one matrix.

    ``‖(W - W') x‖²`` on inputs with second moments G is ``‖(W - W') S‖²`` for any S with S Sᵀ = G, so the best W' of a
    rank is the truncated decomposition of W S, times the inverse of S (arXiv:2403.07378, section 3.1).

    Args:
        matrix: Shape (outputs, inputs), finite.
        gram: Mean of the inputs' outer products, shape (inputs, inputs); None counts all inputs the same.
    """

    def __init__(self, matrix: Floats, gram: Floats | None) -> None:
        self._matrix = matrix.astype(np.float64)
        root, inverse = _roots(gram) if gram is not None else (None, None)
        seen = self._matrix if root is None else self._matrix @ root
        left, values, right = scipy.linalg.svd(seen, full_matrices=False, check_finite=False)
        self._left, self._values = left, values
        self._right = right if inverse is None else right @ inverse
        energy = np.square(values)
        total = max(float(energy.sum()), np.finfo(np.float64).tiny)
        self.errors = np.concatenate([np.cumsum(energy[::-1])[::-1] / total, [0.0]])
        """By rank from 0 on: squared error of the outputs, relative to their squares."""

    def truncated(self, rank: int) -> Factors:
        """The two factors, the singular values divided between them evenly."""
        scale = np.sqrt(self._values[:rank])
        left = self._left[:, :rank] * scale
        right = self._right[:rank] * scale[:, None]
        return Factors(left.astype(np.float32), right.astype(np.float32))


def _roots(gram: Floats) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A root of the second moments, and its inverse."""
    energies, directions = scipy.linalg.eigh(gram.astype(np.float64), check_finite=False)
    floor = max(_SMALLEST_ENERGY * float(np.maximum(energies, 0.0).mean()), np.finfo(np.float64).tiny)
    roots = np.sqrt(np.maximum(energies, 0.0) + floor)
    return directions * roots, (directions / roots).T
