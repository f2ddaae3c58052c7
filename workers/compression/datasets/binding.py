"""Raw rows of a source to the feeds of a model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workers.compression.datasets.labels import is_pairs
from workers.compression.datasets.source import Array, Arrays, Rows, Source
from workers.compression.specs.errors import DatasetMismatch
from workers.compression.specs.formats import DatasetFormat, Task
from workers.compression.specs.job import Preprocessing
from workers.compression.specs.matching import Assignment, assign_inputs, fixed_batch, is_text
from workers.compression.specs.messages import Port


@dataclass(frozen=True)
class Feeder:
    """How rows reach a model.

    Args:
        feed: From row numbers to feeds.
        batch: The number of rows the model takes at a time where that is fixed.
        lengths: How long each row is, where rows differ in length.
    """

    feed: Callable[[Rows], Arrays]
    batch: int | None
    lengths: Callable[[Rows], Rows] | None = None


def feeder(
    source: Source, inputs: tuple[Port, ...], preprocessing: Preprocessing, tokenizer: Path | None, task: Task
) -> Feeder:
    """How the rows of ``source`` reach a model with these inputs.

    Raises:
        DatasetMismatch: The data cannot be fed to these inputs.
    """
    assignments = assign_inputs(source.format, source.features, inputs)
    fixed = fixed_batch(assignments)
    if is_text(source.features):
        return _text_feeder(source, inputs, preprocessing, tokenizer, task, fixed)
    if source.format is DatasetFormat.IMAGE_FOLDER:
        return Feeder(_image_feed(source, inputs[0], preprocessing), fixed)

    def feed(rows: Rows) -> Arrays:
        values = source.read(rows)
        return {found.port.name: _fill(found, values, source.constants) for found in assignments}

    return Feeder(feed, fixed)


def _text_feeder(
    source: Source,
    inputs: tuple[Port, ...],
    preprocessing: Preprocessing,
    tokenizer: Path | None,
    task: Task,
    fixed: int | None,
) -> Feeder:
    # Imported here because only text needs the tokenizers library.
    from workers.compression.datasets.tokens import Tokens  # noqa: PLC0415

    tokens = Tokens(tokenizer, inputs, preprocessing.text())
    apart = is_pairs(source) and task in (Task.SIMILARITY, Task.FIDELITY)

    def columns(rows: Rows) -> list[list[str]]:
        return [[str(text) for text in values] for values in source.read(rows).values()]

    def feed(rows: Rows) -> Arrays:
        read = columns(rows)
        if len(read) == 1:
            return tokens.encode(read[0])
        if apart:
            return tokens.encode(read[0] + read[1])
        return tokens.encode(list(zip(read[0], read[1], strict=True)))

    def lengths(rows: Rows) -> Rows:
        counted = np.stack([tokens.lengths(texts) for texts in columns(rows)])
        total: Rows = counted.max(axis=0) if apart else counted.sum(axis=0)
        return total

    return Feeder(feed, fixed, lengths)


def _image_feed(source: Source, port: Port, preprocessing: Preprocessing) -> Callable[[Rows], Arrays]:
    # Imported here because only images need Pillow.
    from workers.compression.datasets.pixels import Pixels  # noqa: PLC0415

    pixels = Pixels(port, preprocessing)

    def feed(rows: Rows) -> Arrays:
        return {port.name: pixels.encode(source.read(rows)["image"])}

    return feed


def _fill(found: Assignment, values: Arrays, constants: Arrays) -> Array:
    port = found.port
    if found.batch_axis is None:
        return cast(constants[found.features[0]].reshape((1,) * len(port.shape)), port)
    if len(found.features) > 1:
        stacked = np.stack([values[name] for name in found.features], axis=1)
    else:
        stacked = values[found.features[0]]
    rows = len(stacked)
    if stacked.ndim == len(port.shape):
        return cast(np.moveaxis(stacked, 0, found.batch_axis), port)
    sample = tuple(axis for axis in port.shape[1:] if isinstance(axis, int) and axis > 0)
    return cast(stacked.reshape(rows, *(sample or (1,) * (len(port.shape) - 1))), port)


def cast(values: Array, port: Port) -> Array:
    """``values`` in the input's dtype; whole numbers may become floats, floats with fractions never whole numbers."""
    try:
        dtype = np.dtype(port.dtype)
    except TypeError as error:
        raise DatasetMismatch(f"Input {port.name} has the type {port.dtype}, which data cannot fill.") from error
    if dtype.kind not in "biuf":
        raise DatasetMismatch(f"Input {port.name} has the type {port.dtype}, which data cannot fill.")
    if dtype.kind in "biu" and values.dtype.kind == "f" and not np.array_equal(values, np.trunc(values)):
        raise DatasetMismatch(f"Input {port.name} takes {port.dtype}; the data has fractions.")
    if dtype.kind in "iu" and values.dtype.kind in "biuf" and values.size:
        bounds = np.iinfo(dtype)
        if values.min() < bounds.min or values.max() > bounds.max:
            raise DatasetMismatch(f"Input {port.name} takes {port.dtype}; the data has values beyond it.")
    return np.ascontiguousarray(values, dtype=dtype) if values.ndim else np.asarray(values, dtype=dtype)
