"""Which blocks give up their matrices, and whose they compute with instead."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from workers.compression.context import Context
from workers.compression.families.weights import CompressibleModel, Floats, Weight
from workers.compression.sensitivity.yardstick import Yardstick
from workers.compression.specs.errors import ConstraintInfeasible, DatasetMismatch
from workers.compression.specs.steps.share import CrossLayerShare
from workers.compression.techniques.share.cross_layer.blocks import Block, Kind, Sharing, matrices_of, stored_bytes

Costs = npt.NDArray[np.float64]
"""Of one kind, shape (blocks, blocks): how far the outputs move if the block of the column has the row's matrices."""


def yardstick_of(model: CompressibleModel, spec: CrossLayerShare, context: Context) -> Yardstick:
    """Rows, and what the model answers to them as it is.

    Raises:
        DatasetMismatch: There are none.
    """
    dataset = context.any_data()
    if dataset is None:
        raise DatasetMismatch("There are no rows to train on.", reason="training_data_needed")
    return Yardstick(model.run, model.inputs, model.tokenizer_file(), dataset, spec.samples)


def costs_of(model: CompressibleModel, kind: Kind, yardstick: Yardstick, context: Context) -> Costs:
    """Each block computes with the matrices of each other one, all else as it is."""
    costs = np.zeros((len(kind), len(kind)))
    pairs = [(giver, taker) for giver in range(len(kind)) for taker in range(len(kind)) if giver != taker]
    for done, (giver, taker) in enumerate(pairs):
        values = matrices_of(model, kind[giver])
        with model.varied(zip(kind[taker], values, strict=True)) as run:
            costs[giver, taker] = yardstick.effect(run).error
        context.progress(done / len(pairs), kind[taker][0].layer)
    return costs


def choose(kinds: Sequence[Kind], costs: Sequence[Costs], spec: CrossLayerShare, size: int) -> Sharing:
    """Blocks give up their matrices one after the other, always the one without whose the outputs move least.

    What several of them do to the outputs is taken for the sum of what each does alone. Every other block takes the
    matrices that cost it least of those that are left.

    Args:
        size: Bytes of the model's weights.

    Raises:
        ConstraintInfeasible: One copy of each kind is still too large.
    """
    kept = [list(range(len(kind))) for kind in kinds]
    least = [spec.copies or (1 if spec.max_bytes else -(-len(kind) // 2)) for kind in kinds]
    while spec.max_bytes is None or size > spec.max_bytes:
        found = min(_next(kinds, costs, kept, least), default=None)
        if found is None:
            break
        _, kind, block = found
        kept[kind].remove(block)
        size -= stored_bytes(kinds[kind][block])
    if spec.max_bytes is not None and size > spec.max_bytes:
        raise ConstraintInfeasible(
            f"With one copy of each kind of block the weights still take {size} of {spec.max_bytes} bytes.",
            hint="Quantize or prune as well, or let max_bytes be larger.",
        )
    return {
        blocks[taker]: blocks[left[int(np.argmin(cost[left, taker]))]]
        for blocks, cost, left in zip(kinds, costs, kept, strict=True)
        for taker in range(len(blocks))
        if taker not in left
    }


def _next(
    kinds: Sequence[Kind], costs: Sequence[Costs], kept: Sequence[list[int]], least: Sequence[int]
) -> Iterator[tuple[float, int, int]]:
    """What giving up each block's own matrices would cost for a byte, with its kind and number."""
    for number, (blocks, cost, left) in enumerate(zip(kinds, costs, kept, strict=True)):
        for block in left if len(left) > least[number] else ():
            rest = [other for other in left if other != block]
            more = float(cost[rest].min(axis=0).sum() - cost[left].min(axis=0).sum())
            yield more / stored_bytes(blocks[block]), number, block


def initial_values(model: CompressibleModel, sharing: Sharing, yardstick: Yardstick) -> Iterator[tuple[Weight, Floats]]:
    """New matrices of blocks that serve others: the mean over all of them, where the outputs move less by that."""
    for giver in dict.fromkeys(sharing.values()):
        members = [giver, *(taker for taker, own in sharing.items() if own == giver)]
        means = _means(model, members)
        if _error(model, members, means, yardstick) < _error(model, members, matrices_of(model, giver), yardstick):
            yield from zip(giver, means, strict=True)


def _means(model: CompressibleModel, members: Sequence[Block]) -> list[Floats]:
    sums = [np.zeros(weight.matrix_shape) for weight in members[0]]
    for member in members:
        sums = [total + model.matrix(weight) for total, weight in zip(sums, member, strict=True)]
    return [(total / len(members)).astype(np.float32) for total in sums]


def _error(model: CompressibleModel, members: Sequence[Block], values: Sequence[Floats], yardstick: Yardstick) -> float:
    """How far the outputs move if all members have the same matrices."""
    changed = [pair for member in members for pair in zip(member, values, strict=True)]
    with model.varied(changed) as run:
        return yardstick.effect(run).error
