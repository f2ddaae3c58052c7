"""Tables in Parquet: flat columns of numbers, text or equally long lists of numbers, decoded piece by piece."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from workers.compression.datasets.columns import served_features, target_name
from workers.compression.datasets.parquet_pieces import (
    CACHE_BYTES,
    Pieces,
    as_array,
    as_labels,
    decode,
    groups_with_rows,
    is_number,
)
from workers.compression.datasets.source import Array, Source, check_rows
from workers.compression.specs.errors import InvalidDataset, TooLarge
from workers.compression.specs.formats import DatasetFormat
from workers.compression.specs.job import DatasetFields
from workers.compression.specs.messages import Port

MAX_COLUMNS = 100_000
_EXTENSION = b"ARROW:extension:name"


def open_source(path: Path, fields: DatasetFields) -> Source:
    """Opens the table: labels are read at once, features as they are asked for.

    Raises:
        InvalidDataset: ``parquet_invalid``, ``parquet_column``, ``target_missing``.
        TooLarge: ``dataset_too_large``.
    """
    return open_table(path, fields, CACHE_BYTES)


def open_table(path: Path, fields: DatasetFields, cache_bytes: int) -> Source:
    """The same, with at most about ``cache_bytes`` of decoded features held at a time, or one piece if that is more."""
    try:
        file = pq.ParquetFile(path, memory_map=False)
        schema = file.schema_arrow
        groups = groups_with_rows(file)
        rows = sum(file.metadata.row_group(group).num_rows for group in groups)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidDataset("The Parquet file cannot be read.", reason="parquet_invalid") from error
    check_rows(rows)
    names = _checked_names(schema)
    target = target_name(names, fields)
    labels = None if target is None else as_labels(target, decode(file, groups, [target])[target])
    features = [name for name in names if name != target and not name.startswith("__index_level_")]
    first = {name: as_array(name, column) for name, column in decode(file, groups[:1], features).items()}
    used = served_features(first, target)
    pieces = Pieces(file, used, cache_bytes)
    return Source(
        format=DatasetFormat.PARQUET,
        rows=rows,
        features=tuple(_port(name, values, rows) for name, values in used.items()),
        read=pieces.read,
        target=labels,
        target_name=target or "target",
        integer_labels=labels is not None and labels.dtype.kind in "biu",
        groups=pieces.starts,
        groups_mixed=pieces.mixed,
        verify=pieces.verify,
    )


def _port(name: str, values: Array, rows: int) -> Port:
    dtype = "str" if values.dtype.kind == "O" else values.dtype.name
    return Port(name=name, shape=(rows, *values.shape[1:]), dtype=dtype)


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
        return is_number(kind.value_type) or _is_text(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return is_number(kind.value_type)
    return is_number(kind) or _is_text(kind)


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
