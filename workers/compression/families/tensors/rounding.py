"""Round-to-nearest of a tensor in any float type, some rows at a time, as ``quantization.uniform`` computes it.

numpy has no bfloat16, and a large tensor in float32 besides its integers would take five times their memory: here torch
converts, bounds and rounds as many rows as fit into a core's cache. Integers and parameters are, to the last bit, those
of ``uniform.quantize`` on the whole matrix.
"""

from collections.abc import Iterator

import numpy as np
import torch

from workers.compression.families.tensors.layout import PIECE
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.uniform import Floats, Grid, Parameters, Scheme, UniformWeight, parameters_for
from workers.compression.specs.errors import NumericalFailure


def round_to_nearest(matrix: torch.Tensor, name: str, grid: Grid, blocks: Blocks, scheme: Scheme) -> UniformWeight:
    """Quantizes ``matrix`` over the whole range of each block.

    Args:
        matrix: Shape (outputs, inputs), any float type; may be mapped from a file.
        name: Of the weight, for the error.

    Raises:
        NumericalFailure: It holds NaN or infinity.
    """
    bands = list(_bands(blocks))
    integers = torch.empty(blocks.shape, dtype=torch.int8 if grid.signed else torch.uint8)
    # Memory that is touched for the first time costs more than rounding what is written there.
    buffer = torch.empty(max(rows.stop - rows.start for rows in bands), blocks.shape[1])

    def split(rows: slice) -> torch.Tensor:
        return _split(buffer[: rows.stop - rows.start].copy_(matrix[rows]), blocks)

    if blocks.lengths[0] == blocks.shape[0] and len(bands) > 1:
        ends = [_ends(split(rows), name) for rows in bands]
        low, high = np.min([low for low, _ in ends], axis=0), np.max([high for _, high in ends], axis=0)
        parameters = parameters_for(low, high, grid, scheme)
        for rows in bands:
            _encode(split(rows), parameters, grid, integers[rows])
        return UniformWeight(integers.numpy(), parameters, grid, blocks)
    found = []
    for rows in bands:
        values = split(rows)
        found.append(parameters_for(*_ends(values, name), grid, scheme))
        _encode(values, found[-1], grid, integers[rows])
    return UniformWeight(integers.numpy(), _joined(found), grid, blocks)


def _bands(blocks: Blocks) -> Iterator[slice]:
    """Rows of about ``PIECE`` elements, of whole blocks where blocks are not the whole matrix."""
    rows, columns = blocks.shape
    length = blocks.lengths[0]
    step = max(1, PIECE // columns)
    if length < rows:
        step = max(1, step // length) * length
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def _ends(split: torch.Tensor, name: str) -> tuple[Floats, Floats]:
    """Smallest and largest value of each block."""
    low, high = split.amin(dim=(1, 3)).numpy(), split.amax(dim=(1, 3)).numpy()
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise NumericalFailure(f"{name} holds values that are not finite.", hint="Exclude it, or repair the model.")
    return low, high


def _split(values: torch.Tensor, blocks: Blocks) -> torch.Tensor:
    """As ``Blocks.split``: shorter last blocks repeat their last element."""
    rows, columns = values.shape
    height, width = min(blocks.lengths[0], rows), blocks.lengths[1]
    for axis, missing in enumerate((-rows % height, -columns % width)):
        if missing:
            last = values.narrow(axis, values.shape[axis] - 1, 1)
            values = torch.cat([values, last.repeat_interleave(missing, axis)], axis)
    return values.reshape(-(-rows // height), height, -(-columns // width), width)


def _encode(split: torch.Tensor, parameters: Parameters, grid: Grid, integers: torch.Tensor) -> None:
    """Writes the integers of some rows; overwrites ``split``."""

    def beside(values: Floats) -> torch.Tensor:
        return torch.from_numpy(values)[:, None, :, None]

    if parameters.offset is not None:
        split -= beside(parameters.offset)
    split.div_(beside(parameters.scale)).round_()
    if parameters.zero is not None:
        split += beside(parameters.zero.astype(np.float32))
    rows, columns = integers.shape
    whole = split.clamp_(*grid.limits).reshape(split.shape[0] * split.shape[1], -1)
    integers.copy_(whole[:rows, :columns])


def _joined(parts: list[Parameters]) -> Parameters:
    zeros = [part.zero for part in parts if part.zero is not None]
    offsets = [part.offset for part in parts if part.offset is not None]
    return Parameters(
        np.concatenate([part.scale for part in parts]),
        np.concatenate(zeros) if zeros else None,
        np.concatenate(offsets) if offsets else None,
    )
