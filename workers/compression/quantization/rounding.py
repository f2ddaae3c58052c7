"""One matrix to integers, by any of the algorithms."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from workers.compression.families.weights import LayerInputs
from workers.compression.quantization.awq import aware_parameters
from workers.compression.quantization.block_rows import BlockRows, pieces
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.gptq import compensated
from workers.compression.quantization.hqq import improve
from workers.compression.quantization.range_search import RangeSearch
from workers.compression.quantization.uniform import Grid, Parameters, Scheme, UniformWeight, encode
from workers.compression.quantization.weight_ranges import Range, fitted, joined, reshaped

Floats = npt.NDArray[np.float32]
Algorithm = Literal["rtn", "hqq", "gptq", "awq"]


def is_usable(inputs: LayerInputs | None) -> bool:
    """Whether ``gptq`` and ``awq`` can work with these inputs: there are some, finite and not all zero."""
    return inputs is not None and bool(np.isfinite(inputs.gram).all()) and bool((np.diagonal(inputs.gram) > 0).any())


def quantize_matrix(
    matrix: Floats,
    *,
    algorithm: Algorithm,
    bits: int,
    scheme: Scheme,
    blocks: Blocks,
    range: Range,  # noqa: A002 - what the specs call it
    inputs: LayerInputs | None = None,
) -> UniformWeight:
    """Quantizes one matrix.

    Args:
        matrix: Finite, shape (outputs, inputs).
        algorithm: ``rtn`` rounds to nearest within ``range``; ``hqq`` goes on from there; ``gptq`` rounds with
            compensation within ``range``; ``awq`` has a search of its own in place of ``mse``, the only range that goes
            with it.
        range: Of ``weight_ranges``.
        inputs: What the columns meet. ``gptq`` and ``awq`` are ``rtn`` where they are not usable.
    """
    grid = Grid.of(scheme, bits)
    gram = inputs.gram if inputs is not None and is_usable(inputs) else None
    if algorithm == "hqq":
        parameters = _half_quadratic(matrix, grid, blocks, scheme, range)
    elif algorithm == "awq" and gram is not None and range == "mse":
        parameters = aware_parameters(matrix, grid, blocks, scheme, gram)
    else:
        parameters = fitted(matrix, grid, blocks, scheme, range)
    if algorithm == "gptq" and gram is not None:
        return compensated(matrix, parameters, grid, blocks, gram)
    return UniformWeight(encode(matrix, parameters, grid, blocks), parameters, grid, blocks)


def _half_quadratic(matrix: Floats, grid: Grid, blocks: Blocks, scheme: Scheme, method: Range) -> Parameters:
    found = []
    for rows, own in pieces(blocks):
        values = np.ascontiguousarray(matrix[rows])
        start = fitted(values, grid, own, scheme, method)
        search = RangeSearch(BlockRows.of(values, own), grid, scheme)
        search.start_from(start)
        improve(search)
        found.append(reshaped(search.best.parameters(grid, scheme), own.counts))
    return joined(found)
