"""One codebook for a whole weight and a scale for every few inputs: what is common to all values and what is not.

The scale of a group is found together with the codebook: for given scales the best codebook is a k-means of the scaled
values, weighted by the square of the scales; for given codes the best scale is the least squares solution. A scale may
be negative, so that the largest value of a group always lies at the same end of the codebook, as in the llama.cpp
formats. Scales are themselves codes into a codebook of at most 256.
"""

import numpy as np

from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.codebook import CodebookWeight, Floats, GroupScales
from workers.compression.quantization.kmeans import (
    Clustering,
    entries_of,
    has_many_zeros,
    in_half_precision,
    nearest,
    nearest_apart_from_zero,
)

_SAMPLED = 1 << 18
_AT_ONCE = 4 << 20
_ROUNDS = 3
_FEWEST_SCALES = 16
_GROUPS_PER_SCALE = 4
_TRIED = (1.0, 0.8, 0.9, 1.1)
"""Scales that are tried, relative to the present one: least squares alone stays where rounding put it."""


def cluster_with_scales(
    matrix: Floats, length: int, wanted: Clustering, importance: Floats | None = None
) -> CodebookWeight:
    """Quantizes a matrix to a codebook times a scale per group.

    Args:
        matrix: Shape (outputs, inputs), finite.
        length: Inputs to a group; divides their number.
        wanted: How the codebook is found.
        importance: What the squared error of each column counts, shape (inputs,); None for 1.
    """
    groups = matrix.reshape(-1, length)
    weights = None if importance is None else np.maximum(importance.reshape(-1, length), importance.mean() * 1e-3)
    keep_zero = has_many_zeros(matrix)
    ends = np.argmax(np.abs(groups), axis=1)[:, None]
    scales = np.take_along_axis(groups, ends, 1).astype(np.float32)
    book = _book(groups, scales, wanted, weights, keep_zero=keep_zero)
    for _ in range(_ROUNDS):
        scales = better_scales(groups, scales, book, weights)
        book = _book(groups, scales, wanted, weights, keep_zero=keep_zero)
    codes, values = coded_scales(scales, wanted)
    scales = values[codes]
    book = in_half_precision(_book(groups, scales, wanted, weights, keep_zero=keep_zero))
    found = nearest_or_zero(divided(groups, scales), book).reshape(matrix.shape)
    blocks = Blocks.of_matrix((matrix.shape[0], matrix.shape[1]), "tensor")
    by_row = GroupScales(codes.reshape(len(matrix), -1), values, length)
    return CodebookWeight(found, book[:, None, :], wanted.bits, blocks, by_row)


def group_length(columns: int, wanted: int) -> int:
    """Inputs that share a scale: as many as wanted, or a few less where these do not divide an output's inputs.

    All inputs of an output where they cannot be divided into groups of about that length.
    """
    return next((length for length in range(wanted, wanted // 2, -1) if columns % length == 0), columns)


def _book(groups: Floats, scales: Floats, wanted: Clustering, weights: Floats | None, *, keep_zero: bool) -> Floats:
    """K-means of the scaled values, of every so-many-th where there are very many; shape (1, entries)."""
    stride = max(1, groups.size // _SAMPLED)
    chosen = slice(None, None, stride)
    counts = np.square(scales[chosen].astype(np.float64))
    if weights is not None:
        counts = counts * weights[np.arange(len(groups))[chosen] % len(weights)]
    values = divided(groups[chosen], scales[chosen])
    counts = np.broadcast_to(counts, values.shape)
    sets = values.reshape(1, -1), counts.reshape(1, -1).astype(np.float64)
    random = np.random.default_rng(wanted.seed)
    return entries_of(sets, 1 << wanted.bits, wanted.initialization, random, keep_zero=keep_zero)


def nearest_or_zero(rows: Floats, book: Floats) -> np.ndarray:
    """Codes; where one entry of several is zero, it stands for nothing else."""
    return nearest_apart_from_zero(rows, book) if book.shape[1] > 2 and (book == 0.0).any() else nearest(rows, book)


def better_scales(groups: Floats, scales: Floats, book: Floats, weights: Floats | None) -> Floats:
    """Of several scales, each made the best for its codes, the one of least error for each group."""
    best = np.empty_like(scales)
    at_once = max(1, _AT_ONCE // groups.shape[1])
    for start in range(0, len(groups), at_once):
        rows = slice(start, start + at_once)
        part, error = groups[rows], np.full((len(groups[rows]), 1), np.inf)
        counts = 1.0 if weights is None else weights[np.arange(start, start + len(part)) % len(weights)]
        for factor in _TRIED:
            tried = scales[rows] * np.float32(factor)
            entries = book[0][nearest_or_zero(divided(part, tried), book)]
            square = np.sum(counts * entries * entries, axis=1, keepdims=True)
            product = np.sum(counts * part * entries, axis=1, keepdims=True)
            fitted = np.where(square > 0.0, product / np.where(square > 0.0, square, 1.0), 0.0).astype(np.float32)
            found = np.sum(counts * np.square(part - entries * fitted), axis=1, keepdims=True)
            best[rows] = np.where(found < error, fitted, best[rows])
            error = np.minimum(error, found)
    return best


def coded_scales(scales: Floats, wanted: Clustering) -> tuple[np.ndarray, Floats]:
    """Scales as codes into a codebook of their own, weighted by what their error does to the values."""
    if not scales.any():
        return np.zeros(scales.shape, np.uint8), np.zeros(1, np.float32)
    count = min(len(scales), max(_FEWEST_SCALES, min(256, len(scales) // _GROUPS_PER_SCALE)))
    random = np.random.default_rng(wanted.seed)
    keep_zero = bool((scales == 0.0).any())
    sets = scales.reshape(1, -1), None
    values = in_half_precision(entries_of(sets, count, wanted.initialization, random, keep_zero=keep_zero))
    return nearest_or_zero(scales, values), values[0]


def divided(groups: Floats, scales: Floats) -> Floats:
    """Each group divided by its scale, itself where that is zero."""
    return np.asarray(groups / np.where(scales == 0.0, np.float32(1.0), scales), np.float32)
