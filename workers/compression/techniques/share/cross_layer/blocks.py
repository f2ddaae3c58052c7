"""Which blocks of a network are alike, so that one could compute with the matrices of another."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from workers.compression.families.weights import CompressibleModel, Floats, Weight

SMALLEST = 1024
"""Elements of a matrix; what a smaller one takes is not worth an error."""

Block = tuple[Weight, ...]
"""The matrices of one block, in the order in which they are computed with."""
Kind = tuple[Block, ...]
"""Alike blocks, from the input to the output."""


def alike_blocks(groups: Iterable[Sequence[str]], weights: Iterable[Weight]) -> list[Kind]:
    """Blocks with as many matrices of the same shapes in the same order, of each kind two at least.

    Args:
        groups: Names of the parameters of each block.
        weights: Matrices that may be shared.
    """
    by_name = {weight.name: weight for weight in weights if weight.size >= SMALLEST}
    kinds: dict[tuple[object, ...], list[Block]] = defaultdict(list)
    for names in groups:
        block = tuple(by_name[name] for name in names if name in by_name)
        if block:
            kinds[tuple((one.shape, one.dtype, one.role, one.order) for one in block)].append(block)
    return [tuple(blocks) for blocks in kinds.values() if len(blocks) > 1]


def matrices_of(model: CompressibleModel, block: Block) -> list[Floats]:
    """Copies of the values."""
    return [model.matrix(weight).copy() for weight in block]


def stored_bytes(block: Block) -> int:
    """What a block's matrices take."""
    return sum(weight.stored_bytes for weight in block)


def named(block: Block) -> str:
    """For messages: the layer that comes first."""
    return block[0].layer


Sharing = Mapping[Block, Block]
"""Blocks that keep no matrices of their own, each with the one whose they compute with."""
