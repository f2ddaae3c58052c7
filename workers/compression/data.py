"""Datasets as the engine sees them: rows of a file, or made-up rows, in batches that fit a model's inputs."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from workers.compression.datasets.binding import feeder
from workers.compression.datasets.bucketing import bucketed, in_order
from workers.compression.datasets.labels import Labels, is_pairs, label
from workers.compression.datasets.pooling import pool
from workers.compression.datasets.source import Array, Arrays, Rows, Source, port_of
from workers.compression.datasets.splitting import part_of, set_aside, shard_of, shuffled_order, stratified_order
from workers.compression.datasets.synthesis import synthetic_arrays
from workers.compression.specs.containers.sniffing import sniff_dataset
from workers.compression.specs.errors import DatasetMismatch
from workers.compression.specs.formats import DatasetFormat, Task
from workers.compression.specs.job import DatasetFields, Preprocessing
from workers.compression.specs.messages import DatasetFile, DatasetInspection, Port

__all__ = ["Batch", "Dataset", "first_feeds", "inspect", "open_dataset", "pool", "synthetic"]

_MODULES = {
    DatasetFormat.NPZ: "npz",
    DatasetFormat.CSV: "csv_table",
    DatasetFormat.PARQUET: "parquet_table",
    DatasetFormat.JSONL: "jsonl",
    DatasetFormat.IMAGE_FOLDER: "image_folder",
}


class _FormatModule(Protocol):
    """What each module in ``_MODULES`` provides; imported on first use, for each needs a library of its own."""

    def open_source(self, path: Path, fields: DatasetFields) -> Source: ...


@dataclass(frozen=True)
class Batch:
    """Feeds by input name, and the targets of the same rows.

    With ``pairs`` the feeds hold the first texts of all rows and then the second ones: twice as many as targets.
    """

    feeds: Arrays
    targets: Array | None
    rows: int
    pairs: bool = False

    def __len__(self) -> int:
        return self.rows


@dataclass(frozen=True)
class Dataset:
    """Rows of one source that a role may see, in a seeded, stratified order.

    Args:
        source: The opened file.
        labels: Task, classes and targets of all its rows.
        order: Numbers of the rows that belong to this dataset.
        preprocessing: As stated at upload.
        synthetic: Whether the rows are made up.
        mixing: Seed and epoch of the last ``shuffled``; bucketed batches are shuffled by it.
    """

    source: Source
    labels: Labels
    order: Rows
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    synthetic: bool = False
    mixing: tuple[int, int] = (0, 0)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.order)

    @property
    def task(self) -> Task:
        """What the labels ask for."""
        return self.labels.task

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs; empty unless the task is classification."""
        return self.labels.classes

    @property
    def targets(self) -> Array | None:
        """One class index (int64) or value (float64) per row of this dataset, if there are labels."""
        return None if self.labels.targets is None else self.labels.targets[self.order]

    @property
    def pooling(self) -> str:
        """How hidden states become one vector, for ``pool``."""
        return self.preprocessing.text().pooling

    def class_counts(self) -> Rows:
        """How many rows of this dataset each of ``classes`` has; empty unless the task is classification."""
        targets = self.targets if self.task is Task.CLASSIFICATION else None
        if targets is None:
            return np.empty(0, np.int64)
        return np.bincount(targets.astype(np.int64), minlength=len(self.classes))

    def limited(self, rows: int) -> "Dataset":
        """The first ``rows`` rows, which hold the classes in about their shares of the whole.

        They come in the file's order where the file is decoded group by group and does not fit into memory.
        """
        return replace(self, order=self._readable(self.order[:rows]))

    def parts(self, share: float) -> "tuple[Dataset, Dataset]":
        """This dataset without its last ``share`` (0..1) of rows, and those; both hold the classes in their shares.

        The second one comes in the file's order where the file is decoded group by group and does not fit into
        memory; it is empty if ``share`` is 0.

        Raises:
            InvalidDataset: ``too_few_rows`` for a row in each.
        """
        first, last = set_aside(self.order, share)
        return replace(self, order=first), replace(self, order=self._readable(last))

    def shuffled(self, seed: int, epoch: int) -> "Dataset":
        """The same rows in an order that depends on nothing but ``seed`` and ``epoch``."""
        order = shuffled_order(self.order, (seed, epoch), self.source.groups, self.source.groups_mixed)
        return replace(self, order=order, mixing=(seed, epoch))

    def shard(self, rank: int, count: int) -> "Dataset":
        """Every ``count``-th row from ``rank`` on. All shards are equally long and together hold all rows.

        Where the rows do not divide evenly, the first ones come once more at the end of the last shards; else no
        row is in two shards.
        """
        return replace(self, order=shard_of(self.order, rank, count))

    def batches(
        self,
        inputs: tuple[Port, ...],
        size: int,
        tokenizer: Path | None,
        *,
        start: int = 0,
        bucketing: bool = False,
    ) -> Iterator[Batch]:
        """The rows once, ``size`` at a time, the last batch with what is left.

        A model with a fixed batch size gets batches of that size and rows that do not fill one are left out.

        Args:
            inputs: The model's inputs.
            size: Rows per batch.
            tokenizer: The model's tokenizer.json; only text needs it.
            start: Batches to leave out; their rows are not read.
            bucketing: Whether texts of similar length share a batch; the batches then come in an order shuffled by
                ``mixing``, and an incomplete one need not be the last.

        Raises:
            DatasetMismatch: The data cannot be fed to these inputs; found before the first batch.
        """
        feeds = feeder(self.source, inputs, self.preprocessing, tokenizer, self.task)
        pairs = is_pairs(self.source) and self.task in (Task.SIMILARITY, Task.FIDELITY)
        step = size if feeds.batch is None else feeds.batch
        if feeds.batch is not None and (pairs or step > self.rows):
            raise DatasetMismatch(f"The model takes batches of exactly {step}, which this data cannot fill.")
        order = self.order if feeds.batch is None else self.order[: self.rows - self.rows % step]
        if bucketing and feeds.lengths is not None:
            chosen = bucketed(order, step, feeds.lengths, self.mixing, start)
        else:
            chosen = in_order(order, step, start)
        for rows in chosen:
            targets = None if self.labels.targets is None else self.labels.targets[rows]
            yield Batch(feeds.feed(rows), targets, len(rows), pairs)

    def _readable(self, order: Rows) -> Rows:
        """Sorted where reading in any other order would decode the same groups again and again."""
        groups = self.source.groups
        return order if groups is None or len(groups) <= self.source.groups_mixed else np.sort(order)


def open_dataset(file: DatasetFile) -> Dataset:
    """The rows of ``file.part``, each time the same ones for the same split seed."""
    source = _open(file.format, Path(file.path), file.fields)
    labels = _labels(source, file.fields)
    order = stratified_order(source.rows, labels, file.split_seed)
    return Dataset(source, labels, part_of(order, file.part), file.fields.preprocessing)


def inspect(path: Path, filename: str, fields: DatasetFields, out: Path) -> DatasetInspection:
    """Checks an upload by its content and describes it."""
    found = sniff_dataset(path, filename)
    source = _open(found, path, fields)
    source.verify()
    labels = _labels(source, fields)
    return DatasetInspection(
        format=found,
        rows=source.rows,
        task=labels.task,
        features=source.features[:1000],
        target=None if source.target is None else port_of(source.target_name[:200], source.target),
        classes=labels.classes,
        warnings=source.warnings,
    )


def synthetic(
    inputs: tuple[Port, ...], rows: int, seed: int, input_shapes: dict[str, tuple[int, ...]], stretch: int = 1
) -> Dataset:
    """``rows`` made-up rows for a model of which nothing but its inputs is known.

    Args:
        inputs: The model's inputs.
        rows: How many rows; raised to a fixed batch size.
        seed: Same seed, same values.
        input_shapes: Lengths for dynamic axes by input name, with or without the axis of rows.
        stretch: Factor on the customary lengths of dynamic axes that ``input_shapes`` leaves open.
    """
    fixed = max((port.shape[0] for port in inputs if port.shape and isinstance(port.shape[0], int)), default=1)
    count = max(rows, fixed)
    features, constants = synthetic_arrays(inputs, count, seed, input_shapes, stretch)

    def read(chosen: Rows) -> Arrays:
        return {name: values[chosen] for name, values in features.items()}

    source = Source(
        format=DatasetFormat.NPZ,
        rows=count,
        features=tuple(port_of(name, values) for name, values in (features | constants).items()),
        read=read,
        constants=constants,
    )
    return Dataset(source, Labels(Task.FIDELITY), np.arange(count), synthetic=True)


def first_feeds(dataset: Dataset, inputs: tuple[Port, ...], tokenizer: Path | None, size: int) -> Arrays:
    """Feeds of exactly ``size`` rows; a dataset of fewer rows is repeated; of pairs it is the first texts."""
    order = np.resize(dataset.order, size)
    batch = next(replace(dataset, order=order).batches(inputs, size, tokenizer))
    return {name: values[:size] for name, values in batch.feeds.items()} if batch.pairs else batch.feeds


def _labels(source: Source, fields: DatasetFields) -> Labels:
    return label(source, None if fields.task is None else Task(fields.task))


def _open(dataset_format: DatasetFormat, path: Path, fields: DatasetFields) -> Source:
    return _module(dataset_format).open_source(path, fields)


def _module(dataset_format: DatasetFormat) -> _FormatModule:
    name = f"workers.compression.datasets.{_MODULES[dataset_format]}"
    return cast("_FormatModule", importlib.import_module(name))
