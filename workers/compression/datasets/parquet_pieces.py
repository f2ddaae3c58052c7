"""Pieces of a Parquet table: row groups decoded together, of which the ones used last are held."""

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workers.compression.datasets.source import Array, Arrays, Rows, check_decoded
from workers.compression.specs.errors import InvalidDataset

CACHE_BYTES = 256 << 20
_PIECES_HELD = 8
_BATCH_ROWS = 8192
_STRING_BYTES = 64
"""What Python adds to each text."""


class Pieces:
    """Rows of some columns by number, wherever in the file they lie.

    A table that decodes to no more than the cache is one piece; of a larger one, neighbouring row groups make up
    pieces of an eighth of the cache (or one row group each if those are larger), and as many as fit are held.

    Args:
        file: The opened ``ParquetFile``.
        first: The columns to read, with the values of the first row group that has rows: they give widths and types.
        cache_bytes: About how much decoded data to hold; a single piece is held whatever its size.
    """

    def __init__(self, file: Any, first: Arrays, cache_bytes: int) -> None:
        self._file = file
        self._like = {name: values[:0] for name, values in first.items()}
        sizes = _estimated_sizes(file, first)
        whole = sum(sizes.values()) <= cache_bytes
        self._groups = [list(sizes)] if whole else _together(sizes, cache_bytes // _PIECES_HELD)
        largest = max(sum(sizes[group] for group in groups) for groups in self._groups)
        self._held = max(1, cache_bytes // max(largest, 1))
        # Half of what is held: a batch on the border of two windows reads from the pieces of both.
        self.mixed = max(1, self._held // 2)
        counts = [sum(file.metadata.row_group(group).num_rows for group in groups) for groups in self._groups]
        self.starts: Rows = np.cumsum([0, *counts[:-1]]).astype(np.int64)
        self._cache: OrderedDict[int, Arrays] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, rows: Rows) -> Arrays:
        """The values of ``rows``, in their order; only the pieces that hold them are decoded."""
        made = {name: np.empty((len(rows), *like.shape[1:]), like.dtype) for name, like in self._like.items()}
        pieces = np.searchsorted(self.starts, rows, side="right") - 1
        for piece in np.unique(pieces):
            chosen = pieces == piece
            values = self._piece(int(piece))
            for name, column in made.items():
                column[chosen] = values[name][rows[chosen] - self.starts[piece]]
        return made

    def verify(self) -> None:
        """Decodes every piece once, and counts what it comes to."""
        size = 0
        for piece in range(len(self._groups)):
            size += sum(_size(values) for values in self._piece(piece).values())
            check_decoded(size)

    def _piece(self, piece: int) -> Arrays:
        # Batches may be made ahead in one thread while another one reads the rows it validates on.
        with self._lock:
            if piece in self._cache:
                self._cache.move_to_end(piece)
                return self._cache[piece]
            while len(self._cache) >= self._held:
                self._cache.popitem(last=False)
            self._cache[piece] = self._decode(piece)
            return self._cache[piece]

    def _decode(self, piece: int) -> Arrays:
        columns = decode(self._file, self._groups[piece], list(self._like))
        values = {name: as_array(name, columns[name]) for name in self._like}
        for name, like in self._like.items():
            if values[name].shape[1:] != like.shape[1:]:
                raise InvalidDataset(
                    f"The lists in column {name[:120]!r} have different lengths.", reason="parquet_column"
                )
        return values


def decode(file: Any, groups: list[int], names: list[str]) -> dict[str, Any]:
    """Columns of some row groups, read batch by batch and counted on the way: the sizes a file declares may lie.

    Raises:
        InvalidDataset: ``parquet_invalid``.
        TooLarge: ``dataset_too_large``.
    """
    batches = []
    size = 0
    try:
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=names):
            size += sum(_decoded_bytes(column) for column in batch.columns)
            check_decoded(size)
            batches.append(batch)
        table = pa.Table.from_batches(batches)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidDataset("The Parquet file cannot be read.", reason="parquet_invalid") from error
    if table.num_rows != sum(file.metadata.row_group(group).num_rows for group in groups):
        raise InvalidDataset("The Parquet file holds fewer rows than it declares.", reason="parquet_invalid")
    return {name: table.column(name) for name in names}


def is_number(kind: Any) -> bool:
    """Whether values of this Arrow type are numbers or truth values."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def as_labels(name: str, column: Any) -> Array:
    """Labels as numbers or objects of ``str``; missing ones are NaN or None."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return as_labels(name, column.cast(kind.value_type))
    if is_number(kind):
        return np.asarray(column.to_numpy())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(column.to_pylist(), dtype=object)
    return _as_matrix(name, column)


def as_array(name: str, column: Any) -> Array:
    """A column as an array, first axis rows.

    Raises:
        InvalidDataset: ``parquet_column`` for missing values other than of floats, and for ragged lists.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return as_array(name, column.cast(kind.value_type))
    if column.null_count and not pa.types.is_floating(kind):
        raise InvalidDataset(f"Column {name[:120]!r} has missing values.", reason="parquet_column")
    return as_labels(name, column)


def _as_matrix(name: str, column: Any) -> Array:
    values = column.combine_chunks()
    flat = values.flatten()
    width = len(flat) // len(values)
    lengths = {len(item) for item in values} if column.null_count == 0 else set()
    if lengths != {width} or flat.null_count:
        raise InvalidDataset(f"The lists in column {name[:120]!r} have different lengths.", reason="parquet_column")
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(values), width)


def groups_with_rows(file: Any) -> list[int]:
    """Row groups that are not empty."""
    return [group for group in range(file.num_row_groups) if file.metadata.row_group(group).num_rows > 0]


def _estimated_sizes(file: Any, first: Arrays) -> dict[int, int]:
    """Decoded bytes of each row group, from what the first one came to and what the others declare."""
    rows = max(len(values) for values in first.values())
    per_row = sum(_size(values) for values in first.values()) / rows
    groups = {group: file.metadata.row_group(group) for group in groups_with_rows(file)}
    return {group: max(int(facts.num_rows * per_row), facts.total_byte_size) for group, facts in groups.items()}


def _together(sizes: dict[int, int], wanted: int) -> list[list[int]]:
    """Neighbours put together until they come to ``wanted`` bytes."""
    pieces: list[list[int]] = [[]]
    size = 0
    for group, added in sizes.items():
        if pieces[-1] and size + added > wanted:
            pieces.append([])
            size = 0
        pieces[-1].append(group)
        size += added
    return pieces


def _size(values: Array) -> int:
    if values.dtype.kind != "O":
        return int(values.nbytes)
    return sum(_STRING_BYTES + len(text) for text in values)


def _decoded_bytes(column: Any) -> int:
    """Bytes of the column once every index of a dictionary is replaced by its value."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    values = column.dictionary
    if is_number(values.type):
        return len(column) * 8
    return pc.sum(pc.take(pc.binary_length(values), column.indices)).as_py() or 0
