"""Codebooks of a weight's own values: k-means, as in Deep Compression (Han et al., arXiv:1510.00149)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.codebook import CodebookWeight, Floats
from workers.compression.quantization.lloyd import Doubles, Initialization, Sets, entries_for

_CHUNK_ELEMENTS = 16 << 20
_MANY_ZEROS = 1e-3
_LEAST_IMPORTANCE = 1e-3
_HALF_PRECISION = 2.0**-10
_COMPARED_ENTRIES = 64
_NEXT_TO_ZERO = 2.0**-24
"""Relative to the largest value."""


@dataclass(frozen=True)
class Clustering:
    """How codebooks are found.

    Args:
        bits: 1 to 8; at most ``1 << bits`` entries.
        initialization: Where Lloyd's algorithm starts.
        seed: Feeds k-means++.
    """

    bits: int
    initialization: Initialization = "kmeans++"
    seed: int = 0


def cluster(matrix: Floats, blocks: Blocks, wanted: Clustering, importance: Floats | None = None) -> CodebookWeight:
    """Quantizes a matrix to the means of its clusters.

    Where at least a thousandth of the values are exactly zero, as in pruned weights, one entry of every codebook is
    exactly zero and stands for these values alone; the others are clustered into the other entries. (Codebooks of two
    entries have a single other one: values nearer to zero than to it become zero too.) The entries of several
    codebooks are values that float16 can hold, unless they are too small or too large for that.

    Args:
        matrix: Shape (outputs, inputs), finite.
        blocks: Whole rows share a codebook: one for all, one for each or one for a group of them.
        wanted: How.
        importance: What the squared error of each column counts, shape (inputs,), not negative; None for 1.
    """
    length = blocks.lengths[0]
    keep_zero = has_many_zeros(matrix)
    apart = keep_zero and wanted.bits > 1
    random = np.random.default_rng(wanted.seed)
    codebooks = np.empty((*blocks.counts, 1 << wanted.bits), np.float32)
    codes = np.empty(matrix.shape, np.uint8)
    for rows in _ranges_of_blocks(matrix.shape, length):
        part = matrix[rows]
        sets = _blocks_of_values(part, length, importance)
        found = entries_of(sets, 1 << wanted.bits, wanted.initialization, random, keep_zero=keep_zero)
        found = in_half_precision(found) if blocks.counts[0] > 1 else found
        codebooks[rows.start // length :, 0][: len(found)] = found
        books = np.repeat(found, length, axis=0)[: len(part)] if len(found) > 1 else found
        codes[rows] = nearest_apart_from_zero(part, books) if apart else nearest(part, books)
    return CodebookWeight(codes, codebooks, wanted.bits, blocks)


def has_many_zeros(matrix: Floats) -> bool:
    """Whether so many values are exactly zero that they have to stay so."""
    return bool(np.count_nonzero(matrix == 0.0) >= max(1.0, _MANY_ZEROS * matrix.size))


def entries_of(
    sets: tuple[Floats, Doubles | None],
    count: int,
    initialization: Initialization,
    random: np.random.Generator,
    *,
    keep_zero: bool,
) -> Floats:
    """Rising entries of the codebook of each row of values, shape (rows, count).

    Args:
        sets: Values, shape (rows, n), finite; what the squared error of each counts, None for 1.
        count: At least 2.
        random: Feeds k-means++.
        keep_zero: Whether one entry of each has to be exactly zero, for the values that are exactly zero.
    """
    values, importance = sets
    if not keep_zero or count == 2:
        return entries_for(Sets.of(values, importance), count, initialization, random, keep_zero=keep_zero)
    entries = entries_for(_without_zeros(values, importance), count - 1, initialization, random, keep_zero=False)
    # Values of both signs may have a mean of exactly zero, which is taken.
    taken = (entries == 0.0) & (values != 0.0).any(axis=1, keepdims=True)
    entries[taken] = _NEXT_TO_ZERO * float(np.abs(values).max())
    return np.sort(np.pad(entries, ((0, 0), (1, 0))), axis=1)


def nearest_apart_from_zero(rows: Floats, books: Floats) -> npt.NDArray[np.uint8]:
    """The index of the entry nearest to each value among those that are not zero, and of zero for what is zero.

    Args:
        rows: Shape (rows, columns).
        books: At most 256 rising entries for each row, or one row of them for all; one is zero.
    """
    zero = np.argmax(books == 0.0, axis=1)[:, None]
    others = np.arange(books.shape[1] - 1)
    codes = nearest(rows, np.take_along_axis(books, others + (others >= zero), 1))
    codes += codes >= zero
    return np.where(rows == 0.0, zero.astype(np.uint8), codes)


def _without_zeros(values: Floats, importance: Doubles | None) -> Sets:
    """Sets of the values of each row that are not zero; what a row has fewer of than another counts for nothing."""
    if len(values) == 1:
        kept = values[0] != 0.0
        if kept.any():
            return Sets.of(values[:, kept], None if importance is None else importance[:, kept])
    counts = (values != 0.0).sum(axis=1)
    places = np.arange(max(int(counts.max()), 1))
    order = np.argsort(values == 0.0, axis=1, kind="stable")
    order = np.take_along_axis(order, np.minimum(places, np.maximum(counts - 1, 0)[:, None]), 1)
    weights = np.where(places < counts[:, None], 1.0, 0.0)
    if importance is not None:
        weights *= np.take_along_axis(importance, order, 1)
    return Sets.of(np.take_along_axis(values, order, 1), weights)


def codebook_bytes(blocks: Blocks, bits: int, scales: int = 0) -> int:
    """Bytes of packed codes and codebooks; of several codebooks the entries take two bytes each.

    Args:
        scales: How many groups have a scale.
    """
    count = int(np.prod(blocks.counts))
    codes = -(-int(np.prod(blocks.shape, dtype=np.int64)) * bits // 8)
    return codes + (count << bits) * (4 if count == 1 else 2) + scales + 2 * min(scales, 256)


def nearest(rows: Floats, books: Floats) -> npt.NDArray[np.uint8]:
    """The index of the entry nearest to each value; of two equally near ones, the lower.

    Args:
        rows: Shape (rows, columns).
        books: At most 256 rising entries for each row, or one row of them for all.
    """
    between = ((books[:, 1:].astype(np.float64) + books[:, :-1]) / 2.0).astype(np.float32)
    if len(books) == 1 and books.shape[1] > _COMPARED_ENTRIES:
        return np.searchsorted(between[0], rows).astype(np.uint8)
    codes = np.zeros(rows.shape, np.uint8)
    for index in range(between.shape[1]):
        codes += rows > between[:, index : index + 1]
    return codes


def _ranges_of_blocks(shape: tuple[int, ...], length: int) -> Iterator[slice]:
    """Ranges of rows, each of whole blocks that are clustered at once."""
    at_once = max(1, _CHUNK_ELEMENTS // (length * shape[1])) * length
    for start in range(0, shape[0], at_once):
        yield slice(start, min(start + at_once, shape[0]))


def _blocks_of_values(part: Floats, length: int, importance: Floats | None) -> tuple[Floats, Doubles | None]:
    """The values of each block of ``length`` rows and their importance; of very many in one block, every so-many-th."""
    count = -(-len(part) // length)
    missing = count * length - len(part)
    # What a shorter last block lacks counts for nothing.
    values = (np.pad(part, ((0, missing), (0, 0)), mode="edge") if missing else part).reshape(count, -1)
    stride = max(1, values.shape[1] // _CHUNK_ELEMENTS)
    if importance is None and not missing:
        return values[:, ::stride], None
    weights = np.zeros((count * length, part.shape[1]))
    weights[: len(part)] = 1.0 if importance is None else _positive(importance)
    return values[:, ::stride], weights.reshape(count, -1)[:, ::stride]


def _positive(importance: Floats) -> Doubles:
    """Importance with a floor, so that no column may be restored as anything at all."""
    found = np.maximum(importance.astype(np.float64), 0.0)
    mean = float(found.mean())
    return np.maximum(found, _LEAST_IMPORTANCE * mean) if mean > 0.0 else np.ones_like(found)


def in_half_precision(books: Floats) -> Floats:
    """Entries rounded to float16 where that is much finer than they are apart and makes none of them zero."""
    largest = np.abs(books).max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        rounded = books.astype(np.float16).astype(np.float32)
        error = np.abs(rounded - books).max(axis=1, keepdims=True)
    fine = bool((error <= _HALF_PRECISION * largest).all()) and np.array_equal(rounded == 0.0, books == 0.0)
    return rounded if fine else books
