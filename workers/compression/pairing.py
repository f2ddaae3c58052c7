"""The same rows for two models, each in its own inputs, tokens and batch size."""

import filecmp
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from workers.compression.data import Batch, Dataset
from workers.compression.families.model import Feeds, Model
from workers.compression.specs.matching import assign_inputs, fixed_batch
from workers.compression.specs.messages import Port

Batches = tuple[Batch, ...]


@dataclass(frozen=True)
class Binding:
    """What decides how rows become a model's feeds."""

    inputs: tuple[Port, ...]
    tokenizer: Path | None

    def agrees(self, other: "Binding") -> bool:
        """Whether feeds made for one serve the other as they are; the names of symbolic axes do not matter."""
        if [_shape_free_of_names(port) for port in self.inputs] != [_shape_free_of_names(p) for p in other.inputs]:
            return False
        return _same_file(self.tokenizer, other.tokenizer)

    def fixed_batch(self, dataset: Dataset) -> int | None:
        """The number of rows the model takes at a time where that is fixed.

        Raises:
            DatasetMismatch: The data cannot be fed to these inputs.
        """
        return fixed_batch(assign_inputs(dataset.source.format, dataset.source.features, self.inputs))


@dataclass(frozen=True)
class PairedBatches:
    """The same rows for both sides, in one batch each or in several where a fixed batch size asks for it.

    Both sides hold the same objects where the same feeds serve both.
    """

    original: Batches
    compressed: Batches


@dataclass(frozen=True)
class Pair:
    """Original and compressed model with the way that rows take to each."""

    original: Model
    compressed: Model

    @property
    def bindings(self) -> tuple[Binding, Binding]:
        """An artifact is a bare model file: the original's tokenizer serves it unless it brought its own."""
        tokenizer = self.original.tokenizer_file()
        return (
            Binding(self.original.inputs, tokenizer),
            Binding(self.compressed.inputs, self.compressed.tokenizer_file() or tokenizer),
        )

    def fixed_rows(self, dataset: Dataset) -> int | None:
        """The number of rows that both take in whole batches, where either has a fixed batch size."""
        sizes = [binding.fixed_batch(dataset) for binding in self.bindings]
        known = [size for size in sizes if size is not None]
        return math.lcm(*known) if known else None

    def batches(self, dataset: Dataset, rows: int) -> Iterator[PairedBatches]:
        """The rows once, ``rows`` (or ``fixed_rows``) at a time; those that do not fill a fixed batch are left out."""
        before, after = self.bindings
        if before.agrees(after):
            for batch in dataset.batches(before.inputs, rows, before.tokenizer):
                yield PairedBatches((batch,), (batch,))
            return
        step = self.fixed_rows(dataset) or rows
        sides = (_whole_steps(dataset, binding, step) for binding in (before, after))
        for original, compressed in zip(*sides, strict=False):
            yield PairedBatches(original, compressed)

    def feeds(self, dataset: Dataset, rows: int) -> tuple[list[Feeds], list[Feeds]]:
        """Feeds of exactly ``rows`` rows for each side, a multiple of ``fixed_rows``; a small dataset is repeated."""
        repeated = replace(dataset, order=np.resize(dataset.order, rows))
        batches = next(self.batches(repeated, rows))
        return [_rows_of(batch) for batch in batches.original], [_rows_of(batch) for batch in batches.compressed]


def _whole_steps(dataset: Dataset, binding: Binding, step: int) -> Iterator[Batches]:
    fixed = binding.fixed_batch(dataset)
    count = 1 if fixed is None else step // fixed
    batches = dataset.batches(binding.inputs, step, binding.tokenizer)
    while len(whole := tuple(islice(batches, count))) == count:
        yield whole


def _rows_of(batch: Batch) -> Feeds:
    """Of pairs of texts the first ones, so that as many rows are timed as were asked for."""
    return {name: values[: len(batch)] for name, values in batch.feeds.items()} if batch.pairs else batch.feeds


def _shape_free_of_names(port: Port) -> tuple[str, str, tuple[int, ...]]:
    return port.name, port.dtype, tuple(axis if isinstance(axis, int) and axis > 0 else -1 for axis in port.shape)


def _same_file(left: Path | None, right: Path | None) -> bool:
    if left is None or right is None:
        return left is right
    return left == right or filecmp.cmp(left, right, shallow=False)
