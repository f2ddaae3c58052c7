"""Non-uniform quantization: each element names one of a few values that lie wherever they are needed."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.compression.quantization.blocks import Blocks

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CodebookWeight:
    """A weight as codes into codebooks.

    Args:
        codes: uint8, the weight's shape, below ``1 << bits``.
        codebooks: Shape ``(*blocks.counts, entries)`` with at most ``1 << bits`` entries, rising.
        bits: 1 to 8.
        blocks: Which elements share a codebook.
    """

    codes: npt.NDArray[np.uint8]
    codebooks: Floats
    bits: int
    blocks: Blocks

    def restored(self) -> Floats:
        """The values that the codes stand for."""
        books = self.codebooks.reshape(-1, self.codebooks.shape[-1])
        if len(books) == 1:
            return np.asarray(books[0][self.codes], np.float32)
        block = self.blocks.spread(np.arange(len(books), dtype=np.int64).reshape(self.blocks.counts))
        return np.asarray(books[block, self.codes], np.float32)
