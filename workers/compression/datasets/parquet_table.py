"""Tables in Parquet: flat columns of numbers, text or equally long lists of numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from workers.compression.datasets.columns import from_columns, target_name
from workers.compression.datasets.source import Array, Source, check_decoded, check_rows
from workers.compression.specs.errors import InvalidDataset, TooLarge
from workers.compression.specs.formats import DatasetFormat
from workers.compression.specs.job import DatasetFields

MAX_COLUMNS = 100_000
_BATCH_ROWS = 8192
_EXTENSION = b"ARROW:extension:name"


def open_source(path: Path, fields: DatasetFields) -> Source:
    """Reads the table batch by batch, counting what it really decodes to: the sizes it declares may lie.

    Raises:
        InvalidDataset: ``parquet_invalid``, ``parquet_column``, ``target_missing``.
        TooLarge: ``dataset_too_large``.
    """
    try:
        file = pq.ParquetFile(path, memory_map=False)
        schema = file.schema_arrow
        if file.metadata.num_rows > 0:
            check_rows(file.metadata.num_rows)
        names = _checked_names(schema)
        target = target_name(names, fields)
        table = _read(file, schema)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidDataset("The Parquet file cannot be read.", reason="parquet_invalid") from error
    columns = {name: _as_array(name, table.column(name)) for name in names if not name.startswith("__index_level_")}
    integer_labels = target is not None and columns[target].dtype.kind in "biu"
    return from_columns(DatasetFormat.PARQUET, columns, target, integer_labels=integer_labels)


def _checked_names(schema: Any) -> list[str]:
    names = list(schema.names)
    if len(names) > MAX_COLUMNS:
        raise TooLarge(f"The table has more than {MAX_COLUMNS} columns.", reason="dataset_too_large")
    if len(set(names)) != len(names):
        raise InvalidDataset("Two columns have the same name.", reason="parquet_column")
    for name, kind in zip(names, schema.types, strict=True):
        if not _is_served(kind) or _EXTENSION in (schema.field(name).metadata or {}):
            raise InvalidDataset(
                f"Column {name[:120]!r} has the type {str(kind)[:60]}; served are numbers, text and lists of numbers.",
                reason="parquet_column",
            )
    return names


def _is_served(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_number(kind.value_type) or _is_text(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_number(kind.value_type)
    return _is_number(kind) or _is_text(kind)


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _read(file: Any, schema: Any) -> Any:
    batches = []
    rows = size = 0
    for batch in file.iter_batches(_BATCH_ROWS):
        rows += batch.num_rows
        size += sum(_decoded_bytes(column) for column in batch.columns)
        check_rows(rows)
        check_decoded(size)
        batches.append(batch)
    check_rows(rows)
    return pa.Table.from_batches(batches, schema=schema)


def _decoded_bytes(column: Any) -> int:
    """Bytes of the column once every index of a dictionary is replaced by its value."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    values = column.dictionary
    if _is_number(values.type):
        return len(column) * 8
    return pc.sum(pc.take(pc.binary_length(values), column.indices)).as_py() or 0


def _as_array(name: str, column: Any) -> Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _as_matrix(name, column)
    if column.null_count and not pa.types.is_floating(kind):
        raise InvalidDataset(f"Column {name[:120]!r} has missing values.", reason="parquet_column")
    if _is_number(kind):
        return np.asarray(column.to_numpy())
    return np.array(column.to_pylist(), dtype=object)


def _as_matrix(name: str, column: Any) -> Array:
    values = column.combine_chunks()
    flat = values.flatten()
    width = len(flat) // len(values)
    lengths = {len(item) for item in values} if column.null_count == 0 else set()
    if lengths != {width} or flat.null_count:
        raise InvalidDataset(f"The lists in column {name[:120]!r} have different lengths.", reason="parquet_column")
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(values), width)
