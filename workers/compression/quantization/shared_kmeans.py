"""One codebook for many weights, and a scale for every few inputs of each: what layers of one kind have in common.

Weights of trained layers are distributed alike up to their scale, so that each layer's own codebook says much the same
as the others'. What a scale per output takes is made up for by the codebooks that are not stored, the more so the more
entries there are and the smaller the layers.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.codebook import CodebookWeight, Floats, GroupScales
from workers.compression.quantization.kmeans import Clustering, entries_of, has_many_zeros, in_half_precision
from workers.compression.quantization.scaled_kmeans import better_scales, coded_scales, divided, nearest_or_zero

_SAMPLED = 1 << 15
"""Elements that are looked at of each weight, for the codebook."""
_ROUNDS = 3


@dataclass(eq=False)
class _Sample:
    """Groups of one weight, their present scales, and what an error counts in one of them."""

    groups: Floats
    scales: Floats
    counts: float


def shared_codebook(matrices: Iterable[tuple[Floats, int]], wanted: Clustering) -> Floats:
    """A codebook for the scaled values of all matrices, shape (entries,).

    Every matrix's error counts relative to its mean square, so that a layer of small weights is restored as well as one
    of large ones.

    Args:
        matrices: Shape (outputs, inputs), finite, each with the number of inputs that share a scale; one at a time.
        wanted: How the codebook is found.
    """
    samples, keep_zero = [], False
    for matrix, length in matrices:
        groups = matrix.reshape(-1, length)
        keep_zero = keep_zero or has_many_zeros(matrix)
        chosen = groups[:: max(1, matrix.size // _SAMPLED)] if len(groups) * length > _SAMPLED else groups
        energy = float(np.mean(np.square(chosen, dtype=np.float64)))
        counts = matrix.size / chosen.size / energy if energy > 0.0 else 0.0
        samples.append(_Sample(np.array(chosen), _ends(chosen), counts))
    book = _book(samples, wanted, keep_zero=keep_zero)
    for _ in range(_ROUNDS):
        for sample in samples:
            sample.scales = better_scales(sample.groups, sample.scales, book, None)
        book = _book(samples, wanted, keep_zero=keep_zero)
    entries: Floats = in_half_precision(book)[0]
    return entries


def coded_by(matrix: Floats, length: int, book: Floats, wanted: Clustering) -> CodebookWeight:
    """Quantizes a matrix to the entries of a given codebook times a scale per group.

    Args:
        matrix: Shape (outputs, inputs), finite.
        length: Inputs to a group; divides their number.
        book: Rising, shape (entries,).
        wanted: How scales are clustered.
    """
    groups, entries = matrix.reshape(-1, length), book[None]
    scales = _ends(groups)
    for _ in range(_ROUNDS):
        scales = better_scales(groups, scales, entries, None)
    scale_codes, values = coded_scales(scales, wanted)
    codes = nearest_or_zero(divided(groups, values[scale_codes]), entries).reshape(matrix.shape)
    blocks = Blocks.of_matrix((matrix.shape[0], matrix.shape[1]), "tensor")
    by_row = GroupScales(scale_codes.reshape(len(matrix), -1), values, length)
    return CodebookWeight(codes, book[None, None], wanted.bits, blocks, by_row)


def coded_bytes(size: int, length: int, bits: int) -> int:
    """Bytes of packed codes and of scales of a weight of ``size`` elements; the codebook is not counted."""
    groups = size // length
    return -(-size * bits // 8) + groups + 2 * min(groups, 256)


def _ends(groups: Floats) -> Floats:
    """The value of each group that is farthest from zero: divided by it, all end at 1."""
    ends = np.argmax(np.abs(groups), axis=1)[:, None]
    return np.take_along_axis(groups, ends, 1).astype(np.float32)


def _book(samples: list[_Sample], wanted: Clustering, *, keep_zero: bool) -> Floats:
    values, counts = [], []
    for sample in samples:
        scaled = divided(sample.groups, sample.scales)
        values.append(scaled.reshape(-1))
        weights = sample.counts * np.square(sample.scales.astype(np.float64))
        counts.append(np.broadcast_to(weights, scaled.shape).reshape(-1))
    sets = np.concatenate(values)[None], np.concatenate(counts)[None]
    random = np.random.default_rng(wanted.seed)
    return entries_of(sets, 1 << wanted.bits, wanted.initialization, random, keep_zero=keep_zero)
