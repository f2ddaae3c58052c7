"""Non-uniform quantization: each element names one of a few values that lie wherever they are needed."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.compression.quantization.blocks import Blocks

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class GroupScales:
    """What the entries of a codebook are multiplied by: one of a few numbers for each group of inputs of an output.

    Args:
        codes: uint8, shape (outputs, inputs / length).
        values: At most 256 numbers, of either sign.
        length: Inputs to a group.
    """

    codes: npt.NDArray[np.uint8]
    values: Floats
    length: int

    def spread(self) -> Floats:
        """The factor of each element, in the shape of the weight's matrix."""
        return np.asarray(np.repeat(self.values[self.codes], self.length, axis=1), np.float32)


@dataclass(frozen=True, eq=False)
class CodebookWeight:
    """A weight as codes into codebooks.

    Args:
        codes: uint8, the weight's shape, below ``1 << bits``.
        codebooks: Shape ``(*blocks.counts, entries)`` with at most ``1 << bits`` entries, rising.
        bits: 1 to 8.
        blocks: Which elements share a codebook.
        scales: What the entries are multiplied by, of a weight with a single codebook; None for 1.
    """

    codes: npt.NDArray[np.uint8]
    codebooks: Floats
    bits: int
    blocks: Blocks
    scales: GroupScales | None = None

    def restored(self) -> Floats:
        """The values that the codes stand for."""
        books = self.codebooks.reshape(-1, self.codebooks.shape[-1])
        if len(books) == 1:
            values = np.asarray(books[0][self.codes], np.float32)
            return values if self.scales is None else values * self.scales.spread()
        block = self.blocks.spread(np.arange(len(books), dtype=np.int64).reshape(self.blocks.counts))
        return np.asarray(books[block, self.codes], np.float32)
