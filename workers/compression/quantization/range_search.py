"""Searches the parameters with which blocks lose least when they are rounded."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.compression.quantization.block_rows import BlockRows
from workers.compression.quantization.uniform import Grid, Parameters, Scheme, parameters_for

Floats = npt.NDArray[np.float32]

_SHRINK = 0.94
_SMALL_BLOCK = 512
_TRIALS = {True: 14, False: 48}
"""Factors tried for a small block, which hardly has outliers, and for a large one: down to 0.45 and to 0.05."""
_ENDS = (0.88, 0.94, 0.97, 1.03, 1.07, 1.14)
_REFITS = 3
_WORKED_ON = 1 << 16


@dataclass(eq=False)
class Fit:
    """The best parameters so far, all of shape (blocks, 1).

    ``zero`` is a float that holds an integer; with ``offset`` it is 0.
    """

    scale: Floats
    zero: Floats
    offset: Floats
    error: Floats

    def parameters(self, grid: Grid, scheme: Scheme) -> Parameters:
        """As stored."""
        if scheme == "minmax":
            return Parameters(self.scale, offset=self.offset)
        return Parameters(self.scale, self.zero.astype(grid.dtype) if scheme == "affine" else None)


def steps_of(rows: Floats, scale: Floats, zero: Floats, offset: Floats, grid: Grid) -> Floats:
    """How many steps from ``offset`` each value comes to lie: its integer without the zero point."""
    smallest, largest = grid.limits
    steps = np.subtract(rows, offset) if offset.any() else rows
    steps = np.divide(steps, scale)
    np.rint(steps, out=steps)
    np.maximum(steps, smallest - zero, out=steps)
    return np.minimum(steps, largest - zero, out=steps)


def half(values: Floats) -> Floats:
    """``values`` with the precision of float16 where its range holds them, so that formats can store them as that."""
    narrow = values.astype(np.float16)
    usable = np.isfinite(narrow) & (np.abs(narrow) >= np.finfo(np.float16).tiny)
    return np.where(usable, narrow.astype(np.float32), values)


def middle_of(low: Floats, high: Floats, scheme: Scheme) -> Floats:
    """Where both ends of a range move to when it shrinks: to zero unless there is an offset."""
    return (low + high) * np.float32(0.5) if scheme == "minmax" else np.zeros_like(low)


class RangeSearch:
    """Tries parameters for all blocks at once and keeps for each block those of least weighed squared error.

    Args:
        blocks: What is to be rounded.
        grid: Integers there are.
        scheme: How they stand for values.
    """

    def __init__(self, blocks: BlockRows, grid: Grid, scheme: Scheme) -> None:
        self.blocks = blocks
        self.grid = grid
        self.scheme = scheme
        count = (len(blocks.values), 1)
        ones, zeros = np.ones(count, np.float32), np.zeros(count, np.float32)
        self.best = Fit(ones, zeros, zeros.copy(), np.full(count, np.inf, np.float32))

    def start_from(self, parameters: Parameters) -> None:
        """Tries parameters as stored."""
        count = (len(self.blocks.values), 1)
        none = np.zeros(count, np.float32)
        zero, offset = (
            none if found is None else found.astype(np.float32).reshape(count)
            for found in (parameters.zero, parameters.offset)
        )
        self.try_parameters(parameters.scale.reshape(count), zero, offset)

    def try_range(self, low: Floats, high: Floats) -> npt.NDArray[np.bool_]:
        """Tries to cover from ``low`` to ``high`` (blocks, 1); tells which blocks like it better."""
        found = parameters_for(low, high, self.grid, self.scheme)
        zero = np.zeros_like(low) if found.zero is None else found.zero.astype(np.float32)
        offset = np.zeros_like(low) if found.offset is None else found.offset
        return self.try_parameters(found.scale, zero, offset)

    def try_parameters(self, scale: Floats, zero: Floats, offset: Floats) -> npt.NDArray[np.bool_]:
        """Tries parameters; tells which blocks like them better."""
        scale = half(scale)
        error = self._error(scale, zero, offset)
        better = error < self.best.error
        for name, values in (("scale", scale), ("zero", zero), ("offset", offset), ("error", error)):
            setattr(self.best, name, np.where(better, values, getattr(self.best, name)))
        return better

    def search(self, low: Floats, high: Floats) -> Fit:
        """Searches inside the range from ``low`` to ``high`` (blocks, 1): both ends, then the step itself."""
        middle = middle_of(low, high, self.scheme)
        below, above = low - middle, high - middle
        first, second = np.ones_like(low), np.ones_like(low)
        for factor in self._factors():
            better = self.try_range(middle + below * factor, middle + above * factor)
            first, second = (np.where(better, np.float32(factor), kept) for kept in (first, second))
        if self.scheme != "symmetric":
            for change in self._changes():
                moved = first * np.float32(change)
                first = np.where(self.try_range(middle + below * moved, middle + above * second), moved, first)
                moved = second * np.float32(change)
                second = np.where(self.try_range(middle + below * first, middle + above * moved), moved, second)
        for _ in range(_REFITS):
            self.refit()
        return self.best

    def refit(self, zero: Floats | None = None) -> None:
        """Tries the step (and offset) that is best for the integers there are, by least squares.

        Args:
            zero: Other zero points to find the integers with.
        """
        zero = self.best.zero if zero is None else zero
        scale, offset = self.best.scale.copy(), self.best.offset.copy()
        for part in self.parts():
            blocks = self.blocks.part(part)
            steps = steps_of(blocks.values, scale[part], zero[part], offset[part], self.grid)
            if self.scheme == "minmax":
                scale[part], offset[part] = _line(blocks, steps, scale[part], offset[part])
            else:
                scale[part] = _ratio(blocks.inner(steps, blocks.values), blocks.inner(steps, steps), scale[part])
        self.try_parameters(scale, zero, offset)

    @property
    def _is_small(self) -> bool:
        return bool(self.blocks.values.shape[1] < _SMALL_BLOCK)

    def _factors(self) -> Iterable[float]:
        return (_SHRINK**power for power in range(_TRIALS[self._is_small]))

    def _changes(self) -> Iterable[float]:
        """Factors by which each end moves further; of a large block one end may hold all outliers."""
        coarse = () if self._is_small else (0.25, 0.35, 0.5, 0.7, 1.4, 2.0, 2.8, 4.0)
        return (*coarse, *_ENDS)

    def steps(self, part: slice) -> Floats:
        """Integers of some blocks by the best parameters, zero points taken off."""
        best = self.best
        return steps_of(self.blocks.values[part], best.scale[part], best.zero[part], best.offset[part], self.grid)

    def _error(self, scale: Floats, zero: Floats, offset: Floats) -> Floats:
        found = np.empty_like(scale)
        shifted = bool(offset.any())
        for part in self.parts():
            blocks = self.blocks.part(part)
            lost = steps_of(blocks.values, scale[part], zero[part], offset[part], self.grid)
            lost *= scale[part]
            if shifted:
                lost += offset[part]
            lost -= blocks.values
            found[part, 0] = blocks.inner(lost, lost)
        return found

    def parts(self) -> Iterable[slice]:
        """Blocks that fit a cache together."""
        count, length = self.blocks.values.shape
        step = max(1, _WORKED_ON // length)
        return (slice(start, start + step) for start in range(0, count, step))


def _ratio(above: Floats, below: Floats, otherwise: Floats) -> Floats:
    """``above / below`` as positive steps; ``otherwise`` where there is none."""
    above, below = above[:, None], below[:, None]
    usable = (below > 0) & (above > below * np.finfo(np.float32).tiny)
    return np.where(usable, above / np.where(usable, below, 1), otherwise).astype(np.float32)


def _line(blocks: BlockRows, steps: Floats, scale: Floats, offset: Floats) -> tuple[Floats, Floats]:
    """Scale and offset of the line through (steps, values) that is best by weighed least squares."""
    one = np.ones_like(steps)
    total = blocks.inner(one, one)[:, None]
    mean_step = blocks.inner(one, steps)[:, None] / total
    mean_value = blocks.inner(one, blocks.values)[:, None] / total
    centred = steps - mean_step
    covered = blocks.inner(centred, centred)
    slope = _ratio(blocks.inner(centred, blocks.values - mean_value), covered, scale)
    slope = half(slope)
    return slope, np.where(covered[:, None] > 0, mean_value - slope * mean_step, offset).astype(np.float32)
