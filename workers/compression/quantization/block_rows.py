"""The blocks of a matrix one below the other, and how errors in them are weighed."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from workers.compression.quantization.blocks import Blocks

Floats = npt.NDArray[np.float32]

PIECE_ELEMENTS = 1 << 22
"""Values that are worked on at once, where blocks are smaller than that."""


def pieces(blocks: Blocks, elements: int = PIECE_ELEMENTS) -> Iterator[tuple[slice, Blocks]]:
    """Rows of a matrix that hold whole blocks and about ``elements`` values, and the blocks of those rows alone."""
    rows, columns = blocks.shape
    height = blocks.lengths[0]
    step = max(1, elements // (height * columns)) * height
    for start in range(0, rows, step):
        stop = min(rows, start + step)
        yield slice(start, stop), Blocks((stop - start, columns), (min(height, stop - start), blocks.lengths[1]))


@dataclass(frozen=True, eq=False)
class BlockRows:
    """Blocks as rows.

    Args:
        values: Shape (blocks, elements of a block).
        weights: What squared errors count, broadcasts against ``values``; zero where a block of the matrix is shorter
            than the others. None: the same everywhere.
        gram: Weighs errors instead: of shape (columns, columns), for blocks that all lie over the same columns.
    """

    values: Floats
    weights: Floats | None = None
    gram: Floats | None = None

    @classmethod
    def of(cls, matrix: Floats, blocks: Blocks, weights: Floats | None = None) -> "BlockRows":
        """The blocks of ``matrix``.

        Args:
            weights: What squared errors count, one per column.
        """
        counted: Floats | None = None
        if weights is not None:
            counted = _as_rows(np.broadcast_to(weights, matrix.shape), blocks, filler=0.0)
        elif any(size % length for size, length in zip(blocks.shape, blocks.lengths, strict=True)):
            counted = _as_rows(np.ones(matrix.shape, np.float32), blocks, filler=0.0)
        return cls(_as_rows(matrix, blocks), counted)

    def part(self, rows: slice) -> "BlockRows":
        """Some of the blocks."""
        weights = self.weights if self.weights is None or len(self.weights) == 1 else self.weights[rows]
        return replace(self, values=self.values[rows], weights=weights)

    def inner(self, left: Floats, right: Floats) -> Floats:
        """The weighed inner product of two arrays like ``values``, one per block."""
        if self.gram is not None:
            columns = len(self.gram)
            left = (left.reshape(-1, columns) @ self.gram).reshape(left.shape)
        elif self.weights is not None:
            left = left * self.weights
        return np.asarray(np.einsum("ij,ij->i", left, right), np.float32)


def _as_rows(matrix: Floats, blocks: Blocks, filler: float | None = None) -> Floats:
    if filler is not None:
        lacking = [
            (0, count * length - size)
            for size, count, length in zip(blocks.shape, blocks.counts, blocks.lengths, strict=True)
        ]
        matrix = np.pad(matrix, lacking, constant_values=filler)
        blocks = Blocks(matrix.shape, blocks.lengths)
    split = blocks.split(matrix)
    return np.ascontiguousarray(split.transpose(0, 2, 1, 3)).reshape(-1, blocks.lengths[0] * blocks.lengths[1])
