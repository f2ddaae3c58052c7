"""Statistics of what enters layers, gathered batch by batch in bounded memory, whatever runs the model."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from workers.compression.data import Dataset
from workers.compression.families.model import Array, Feeds, Model
from workers.compression.families.weights import Floats, LayerInputs, Weight

BATCH_ROWS = 8
VECTORS_PER_BATCH = 4096
"""Of more vectors in a batch that many are drawn."""

GRAM_BYTES = 1 << 30
"""Memory for Gram matrices; layers whose own takes more are left out."""

_VALUES_AT_ONCE = 32
"""Distinct values watched in one pass over the rows, for those of a batch are in memory together."""

_MASK = "attention_mask"


@dataclass(frozen=True)
class Windows:
    """How a convolution cuts its input into one vector per output position.

    Args:
        kernel: Length along each spatial axis.
        strides: Of the same axes, as the others.
        dilations: Distance between taps.
        pads: Zeros before and after each axis; or as many as make outputs as long as inputs divided by strides, of an
            odd number one more after (``upper``) or before.
        groups: Channels are cut into that many groups, which share the statistics.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...] | Literal["same_upper", "same_lower"]
    groups: int = 1

    def vectors(self, values: Floats, most: int, random: np.random.Generator) -> Floats:
        """Vectors (count, channels of a group times taps) at no more than ``most`` positions, drawn evenly.

        Args:
            values: Shape (rows, channels, spatial...).
        """
        spatial = tuple(range(2, values.ndim))
        padded = np.pad(values, [(0, 0), (0, 0), *self._pads(values.shape[2:])])
        reach = [(taps - 1) * apart + 1 for taps, apart in zip(self.kernel, self.dilations, strict=True)]
        windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=spatial)
        places = tuple(slice(None, None, stride) for stride in self.strides)
        taps = tuple(slice(None, None, apart) for apart in self.dilations)
        windows = np.moveaxis(windows[(slice(None), slice(None), *places, *taps)], 1, len(spatial) + 1)
        positions = windows.shape[: len(spatial) + 1]
        count = int(np.prod(positions))
        most = max(1, most // self.groups)
        chosen = np.arange(count) if count <= most else np.sort(random.choice(count, most, replace=False))
        taken = windows[np.unravel_index(chosen, positions)]
        return np.asarray(taken.reshape(len(chosen) * self.groups, -1), np.float32)

    def _pads(self, sizes: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        if not isinstance(self.pads, str):
            return self.pads
        found = []
        for size, taps, stride, apart in zip(sizes, self.kernel, self.strides, self.dilations, strict=True):
            lacking = max(0, (-(-size // stride) - 1) * stride + (taps - 1) * apart + 1 - size)
            less, more = lacking // 2, lacking - lacking // 2
            found.append((less, more) if self.pads == "same_upper" else (more, less))
        return tuple(found)


@dataclass(frozen=True)
class Entry:
    """A value that enters layers.

    Args:
        source: What the model's runner knows the value by.
        columns: Inputs of the layers.
        windows: For convolutions.
        axis: Along which the inputs lie; not for convolutions.
    """

    source: Hashable
    columns: int
    windows: Windows | None = None
    axis: int = -1

    def vectors(self, values: Floats, feeds: Feeds, random: np.random.Generator) -> Floats | None:
        """Input vectors as rows, padding left out; None where the value has another shape than expected."""
        if self.windows is not None:
            if values.ndim != len(self.windows.kernel) + 2 or not values.size:
                return None
            found = self.windows.vectors(values, VECTORS_PER_BATCH, random)
            return found if found.shape[1] == self.columns else None
        if values.ndim == 0 or values.shape[self.axis] != self.columns:
            return None
        rows = _unmasked(np.moveaxis(values, self.axis, -1), feeds)
        if len(rows) > VECTORS_PER_BATCH:
            rows = rows[np.sort(random.choice(len(rows), VECTORS_PER_BATCH, replace=False))]
        return rows


Entries = Mapping[str, Sequence[Entry]]
"""What enters the layers of a weight, by its name; several entries where layers share it."""

Observed = Iterator[tuple[Feeds, Mapping[Hashable, Sequence[Array]]]]
Observe = Callable[[Sequence[Hashable]], Observed]
"""Runs the model over all rows; gives, batch by batch, the feeds and the values of some sources: several where one is
run several times."""


def rows_of(model: Model, dataset: Dataset, threads: int) -> Iterator[Feeds]:
    """The dataset's rows as a model takes them, a few at a time; the model runs with ``threads``."""
    model.threads(threads)
    for batch in dataset.batches(model.inputs, BATCH_ROWS, model.tokenizer_file()):
        yield batch.feeds


def gathered(weights: Iterable[Weight], entries: Entries, observe: Observe) -> Iterator[tuple[Weight, LayerInputs]]:
    """Statistics of what each weight's columns meet, in the weights' order; those that cannot be had are left out.

    The model is run as often as it takes for Gram matrices and a batch's values to fit the memory. What is drawn of
    many vectors depends on nothing but the rows and the layer itself.
    """
    for group in _groups([weight for weight in weights if weight.name in entries], entries):
        sums = {entry: _Sums.empty(entry.columns) for weight in group for entry in entries[weight.name]}
        for feeds, values in observe(list(dict.fromkeys(entry.source for entry in sums))):
            for entry, total in sums.items():
                for found in values[entry.source]:
                    total.add(entry.vectors(np.asarray(found, np.float32), feeds, total.random))
        for weight in group:
            parts = [sums[entry] for entry in entries[weight.name]]
            if all(part.is_whole and part.count for part in parts):
                yield weight, _result(parts)


@dataclass
class _Sums:
    """Running sums over input vectors."""

    gram: Floats
    magnitude: Floats
    random: np.random.Generator
    count: int = 0
    is_whole: bool = True

    @classmethod
    def empty(cls, columns: int) -> "_Sums":
        gram, magnitude = np.zeros((columns, columns), np.float32), np.zeros(columns, np.float32)
        return cls(gram, magnitude, np.random.default_rng(0))

    def add(self, vectors: Floats | None) -> None:
        if vectors is None:
            self.is_whole = False
        elif len(vectors):
            self.gram += vectors.T @ vectors
            self.magnitude += np.abs(vectors).sum(axis=0)
            self.count += len(vectors)


def _result(parts: Sequence[_Sums]) -> LayerInputs:
    count = sum(part.count for part in parts)
    gram, magnitude = parts[0].gram, parts[0].magnitude
    for part in parts[1:]:
        gram, magnitude = gram + part.gram, magnitude + part.magnitude
    return LayerInputs(gram / np.float32(count), magnitude / np.float32(count), count)


def _unmasked(values: Floats, feeds: Feeds) -> Floats:
    """Vectors along the last axis as rows; of tokens only those that the feed ``attention_mask`` leaves in."""
    rows = values.reshape(-1, values.shape[-1])
    mask = feeds.get(_MASK)
    if mask is None or mask.ndim != 2:
        return rows
    by_token = values.shape[:-1] == mask.shape or (values.ndim == 2 and len(rows) == mask.size)
    return rows[mask.reshape(-1).astype(bool)] if by_token else rows


def _groups(weights: Iterable[Weight], entries: Entries) -> Iterator[list[Weight]]:
    """Consecutive weights whose Gram matrices fit the memory together."""
    group: list[Weight] = []
    held: set[Entry] = set()
    for weight in weights:
        own = set(entries[weight.name])
        if _gram_bytes(own) > GRAM_BYTES:
            continue
        together = held | own
        if group and (
            _gram_bytes(together) > GRAM_BYTES or len({entry.source for entry in together}) > _VALUES_AT_ONCE
        ):
            yield group
            group, together = [], own
        group.append(weight)
        held = together
    if group:
        yield group


def _gram_bytes(entries: Iterable[Entry]) -> int:
    return sum(4 * entry.columns**2 for entry in entries)
