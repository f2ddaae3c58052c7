"""How values that enter a layer are rounded where the range is known beforehand."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.compression.quantization.uniform import Grid

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ActivationGrid:
    """``value = (integer - zero) * scale`` with integers 0..2^bits-1, one scale for the whole tensor.

    Args:
        scale: Positive; a number that float32 has.
        zero: Integer that stands for zero.
        bits: 2 to 8.
    """

    scale: float
    zero: int
    bits: int

    @property
    def top(self) -> int:
        """The largest integer; the smallest is 0."""
        return Grid(signed=False, bits=self.bits).limits[1]

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest value that an integer stands for."""
        scale = np.float32(self.scale)
        return float(scale * np.float32(-self.zero)), float(scale * np.float32(self.top - self.zero))

    def rounded(self, values: Floats) -> Floats:
        """The values that the nearest integers stand for."""
        scale, zero = np.float32(self.scale), np.float32(self.zero)
        integers = np.clip(np.rint(values / scale) + zero, 0, self.top)
        return np.asarray((integers - zero) * scale, np.float32)
