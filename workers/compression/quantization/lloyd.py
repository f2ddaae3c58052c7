"""K-means on sorted numbers, many independent sets of them at once.

In one dimension clusters are intervals: after one sort and two running sums an iteration of Lloyd's algorithm only
looks up where the boundaries fall, so its time hardly depends on how many numbers there are. Lloyd's algorithm stops
wherever no boundary moves, far from the optimum at times; exchanges get it out of there: two neighbouring clusters are
merged and another is split wherever that lowers the error. A single set of few clusters also starts from what is
optimal on a histogram of it.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from workers.compression.quantization.optimal_intervals import optimal_means

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]
Initialization = Literal["kmeans++", "linear"]

_ENOUGH = 1e-4
"""Movement of the entries, relative to the largest, below which they count as settled."""
_STEPS = 100
_STARTS = 4
"""Of a single set of many clusters: next to sorting it they cost little."""
_STEPS_BETWEEN_EXCHANGES = 4
_EXCHANGES_PER_ENTRY = 2
_CANDIDATES_PER_ENTRY = 8
_BINS = 512
_MOST_OPTIMAL_ENTRIES = 32


@dataclass(frozen=True, eq=False)
class Sets:
    """Sets of numbers in rising order, with running sums over them.

    Args:
        values: Shape (sets, n).
        importance: Running sum of what each number's error counts, shape (sets, n + 1).
        moments: Running sum of importance times value, shape (sets, n + 1).
    """

    values: Floats
    importance: Doubles
    moments: Doubles

    @classmethod
    def of(cls, values: Floats, importance: Doubles | None = None) -> "Sets":
        """Sorts each row of ``values``.

        Args:
            importance: Of the same shape, not negative; None for 1.
        """
        if importance is None:
            ordered = np.sort(values, axis=1)
            ranks = np.arange(ordered.shape[1] + 1, dtype=np.float64)
            return cls(ordered, np.broadcast_to(ranks, (len(ordered), ranks.size)), _running(ordered))
        order = np.argsort(values, axis=1, kind="stable")
        ordered, counts = np.take_along_axis(values, order, 1), np.take_along_axis(importance, order, 1)
        return cls(ordered, _running(counts), _running(counts * ordered))

    def positions(self, bounds: Doubles) -> Positions:
        """For each bound of each set, how many of its numbers do not exceed it; bounds are compared as float32."""
        wanted, size = bounds.astype(np.float32), self.values.shape[1]
        if len(self.values) == 1:
            return np.asarray(np.searchsorted(self.values[0], wanted[0], side="right"), np.int64)[None]
        low = np.zeros(bounds.shape, np.int64)
        step = 1 << (size.bit_length() - 1)
        while step:
            reached = low + step
            below = np.take_along_axis(self.values, np.minimum(reached, size) - 1, 1) <= wanted
            low = np.where(below & (reached <= size), reached, low)
            step >>= 1
        return low

    def between(self, edges: Positions) -> tuple[Doubles, Doubles]:
        """Importance and moment of the numbers between neighbouring positions."""
        weights = np.diff(np.take_along_axis(self.importance, edges, 1), axis=1)
        return weights, np.diff(np.take_along_axis(self.moments, edges, 1), axis=1)

    def edges(self, entries: Doubles) -> Positions:
        """Where the numbers that are nearest to each entry begin, and where the last ones end."""
        inner = self.positions((entries[:, 1:] + entries[:, :-1]) / 2.0)
        ends = np.full((len(entries), 1), self.values.shape[1], np.int64)
        return np.concatenate([np.zeros_like(ends), inner, ends], axis=1)


def entries_for(
    sets: Sets, count: int, initialization: Initialization, random: np.random.Generator, *, keep_zero: bool
) -> Floats:
    """Rising entries of each set's codebook, shape (sets, count).

    Args:
        initialization: ``kmeans++`` draws entries among the numbers (Arthur and Vassilvitskii 2007); ``linear`` lays
            them evenly over the range.
        random: Feeds ``kmeans++``.
        keep_zero: Whether one entry of each has to be exactly zero.
    """
    single, few = len(sets.values) == 1, count <= _MOST_OPTIMAL_ENTRIES
    if initialization == "linear":
        starts = [_linear(sets, count)]
    else:
        starts = [_plus_plus(sets, count, random) for _ in range(_STARTS if single and not few else 1)]
    if single and few:
        starts.append(_optimal(sets, count))
    found = [_improved(sets, entries, keep_zero=keep_zero) for entries in starts]
    entries = min(found, key=lambda entries: _error(sets, entries)) if single else found[0]
    _keep_few_values(sets, entries)
    return np.sort(entries.astype(np.float32), axis=1)


def _improved(sets: Sets, entries: Doubles, *, keep_zero: bool) -> Doubles:
    """Entries after steps and exchanges, until neither lowers the error."""
    count = entries.shape[1]
    for _ in range(_EXCHANGES_PER_ENTRY * count):
        entries = _settled(sets, entries, _STEPS_BETWEEN_EXCHANGES, keep_zero=keep_zero)
        entries, better = _exchanged(sets, entries, keep_zero=keep_zero)
        if not better:
            break
    return _settled(sets, entries, _STEPS, keep_zero=keep_zero)


def _error(sets: Sets, entries: Doubles) -> float:
    """The squared error over all sets, less what does not depend on the entries."""
    weights, moments = sets.between(sets.edges(entries))
    return float(np.sum(entries * (weights * entries - 2.0 * moments)))


def _running(values: npt.NDArray[np.floating]) -> Doubles:
    sums = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:], dtype=np.float64)
    return sums


def _settled(sets: Sets, entries: Doubles, steps: int, *, keep_zero: bool) -> Doubles:
    """Entries after at most ``steps`` of Lloyd's algorithm; one that is nearest to nothing stays."""
    scale = np.maximum(np.abs(entries).max(axis=1), 1e-300)
    zero = np.argmin(np.abs(entries), axis=1)[:, None]
    for _ in range(steps):
        weights, moments = sets.between(sets.edges(entries))
        moved = np.where(weights > 0.0, _divided(moments, weights), entries)
        if keep_zero:
            np.put_along_axis(moved, zero, 0.0, 1)
        settled = float((np.abs(moved - entries).max(axis=1) / scale).max()) <= _ENOUGH
        entries = moved
        if settled:
            break
    return entries


def _exchanged(sets: Sets, entries: Doubles, *, keep_zero: bool) -> tuple[Doubles, bool]:
    """In each set, the cluster that gains most by it is split and the neighbours that lose least are merged.

    Merging two clusters costs ``w1 w2 / (w1 + w2) (m1 - m2)^2`` with their importances and means; a split gains that.
    """
    edges = sets.edges(entries)
    weights, moments = sets.between(edges)
    means = np.where(weights > 0.0, _divided(moments, weights), entries)
    middle = np.clip(sets.positions(means), edges[:, :-1], edges[:, 1:])
    pairs = np.stack([edges[:, :-1], middle], axis=2).reshape(len(entries), -1)
    both = sets.between(np.concatenate([pairs, edges[:, -1:]], axis=1))
    part_weights, part_moments = (found.reshape(*means.shape, 2) for found in both)
    part_means = np.where(part_weights > 0.0, _divided(part_moments, part_weights), means[:, :, None])
    gains = _distance(part_weights[..., 0], part_weights[..., 1], part_means[..., 0] - part_means[..., 1])
    losses = _distance(weights[:, 1:], weights[:, :-1], np.diff(means, axis=1))
    if keep_zero:
        zero = np.argmin(np.abs(entries), axis=1)[:, None]
        np.put_along_axis(gains, zero, 0.0, 1)
        _forbid_merging(losses, zero)
    split = np.argmax(gains, axis=1)[:, None]
    _forbid_merging(losses, split)
    merge = np.argmin(losses, axis=1)[:, None]
    gain, loss = np.take_along_axis(gains, split, 1), np.take_along_axis(losses, merge, 1)
    better = gain > loss * (1.0 + 1e-3)
    joint = _divided(
        *(np.take_along_axis(found, merge, 1) + np.take_along_axis(found, merge + 1, 1) for found in (moments, weights))
    )
    changed = means.copy() if not keep_zero else entries.copy()
    np.put_along_axis(changed, merge, joint, 1)
    np.put_along_axis(changed, merge + 1, np.take_along_axis(part_means[..., 1], split, 1), 1)
    np.put_along_axis(changed, split, np.take_along_axis(part_means[..., 0], split, 1), 1)
    return np.where(better, np.sort(changed, axis=1), entries), bool(better.any())


def _forbid_merging(losses: Doubles, index: Positions) -> None:
    """No pair of which the cluster at ``index`` is one may be merged."""
    columns = np.arange(losses.shape[1])
    losses[(columns == index) | (columns == index - 1)] = np.inf


def _distance(left: Doubles, right: Doubles, apart: Doubles) -> Doubles:
    return _divided(left * right, left + right) * np.square(apart)


def _divided(numerator: Doubles, denominator: Doubles) -> Doubles:
    return np.asarray(numerator / np.where(denominator > 0.0, denominator, 1.0))


def _optimal(sets: Sets, count: int) -> Doubles:
    """The best entries for a histogram of the one set, whose bins are narrow in the bulk and short in the tails."""
    values, size = sets.values[0], sets.values.shape[1]
    evenly = np.linspace(float(values[0]), float(values[-1]), _BINS // 2)
    ranks = np.linspace(0, size, _BINS // 2).astype(np.int64)
    edges = np.unique(np.concatenate([ranks, sets.positions(evenly[None])[0]]))
    weights, moments = (found[0] for found in sets.between(np.append(0, edges[edges > 0])[None]))
    counted = weights > 0.0
    entries = optimal_means(moments[counted] / weights[counted], weights[counted], count)
    return np.pad(entries, (0, count - len(entries)), mode="edge")[None]


def _linear(sets: Sets, count: int) -> Doubles:
    low, high = (sets.values[:, end].astype(np.float64)[:, None] for end in (0, -1))
    return np.asarray(low + (high - low) * np.linspace(0.0, 1.0, count))


def _plus_plus(sets: Sets, count: int, random: np.random.Generator) -> Doubles:
    """Each entry is drawn with the odds of its squared distance to those drawn before, out of evenly spread ranks."""
    size = sets.values.shape[1]
    places = np.unique(np.linspace(0, size - 1, _CANDIDATES_PER_ENTRY * count).astype(np.int64))
    values = sets.values[:, places].astype(np.float64)
    weights, _ = sets.between(np.broadcast_to(np.append(places, size), (len(values), places.size + 1)))
    nearest = np.full(values.shape, np.inf)
    odds = weights
    entries = np.empty((len(values), count))
    for index in range(count):
        sums = np.cumsum(odds, axis=1)
        drawn = random.random((len(values), 1)) * sums[:, -1:]
        chosen = np.minimum((sums <= drawn).sum(axis=1, keepdims=True), values.shape[1] - 1)
        entry = np.take_along_axis(values, chosen, 1)
        entries[:, index : index + 1] = entry
        nearest = np.minimum(nearest, np.square(values - entry))
        odds = weights * nearest
    return np.sort(entries, axis=1)


def _keep_few_values(sets: Sets, entries: Doubles) -> None:
    """Sets that hold no more values than entries are restored exactly."""
    distinct = 1 + np.count_nonzero(np.diff(sets.values, axis=1), axis=1)
    for index in np.flatnonzero(distinct <= entries.shape[1]):
        values = np.unique(sets.values[index])
        entries[index] = np.pad(values, (0, entries.shape[1] - len(values)), mode="edge")
