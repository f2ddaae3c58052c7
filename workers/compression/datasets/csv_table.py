"""Tables as delimited text: a header line, numeric features, a label of any kind."""

import csv
import math
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np

from workers.compression.datasets.columns import TEXT_COLUMNS, from_columns, parse_labels, target_name
from workers.compression.datasets.source import MAX_ROWS, Array, Source, check_decoded, check_rows
from workers.compression.datasets.text_lines import lines
from workers.compression.specs.errors import InvalidDataset
from workers.compression.specs.formats import DatasetFormat
from workers.compression.specs.job import DatasetFields

MAX_FIELD_CHARACTERS = 131_072
_DELIMITERS = ",;\t"
Column: TypeAlias = "array[float] | list[str]"


def open_source(path: Path, fields: DatasetFields) -> Source:
    """Reads the whole table, numbers as float64.

    Raises:
        InvalidDataset: ``csv_encoding``, ``csv_header``, ``csv_ragged``, ``csv_not_numeric``, ``csv_not_finite``,
            ``csv_invalid``, ``target_missing``.
        TooLarge: ``csv_line_too_long``, ``dataset_too_large``.
    """
    records = _records(path)
    header = next(records, None)
    if header is None:
        raise InvalidDataset("The file is empty.", reason="dataset_empty")
    names = _checked_header(header)
    target = target_name(names, fields)
    columns: dict[str, Column] = {name: [] if name == target or name in TEXT_COLUMNS else array("d") for name in names}
    size = 0
    for number, record in enumerate(records, start=2):
        _append(columns, record, number)
        size += _decoded_bytes(columns, record)
        check_decoded(size)
        if number > MAX_ROWS + 1:
            check_rows(number)
    index = columns.pop("", None)
    warnings = ["The first column has no name and was left out as a row index."] if index is not None else []
    arrays = {name: _as_array(name, column, target) for name, column in columns.items()}
    warnings += [f"Column {name[:120]} has missing values." for name, values in arrays.items() if _has_gaps(values)]
    return from_columns(DatasetFormat.CSV, arrays, target, warnings=tuple(warnings[:20]))


def _decoded_bytes(columns: dict[str, Column], record: list[str]) -> int:
    texts = (len(cell) for cell, column in zip(record, columns.values(), strict=True) if isinstance(column, list))
    return 8 * len(record) + sum(texts)


def _records(path: Path) -> Iterator[list[str]]:
    text = (line.decode("utf-8") for line in lines(path, "csv"))
    first = next(text, None)
    if first is None:
        return
    delimiter = max(_DELIMITERS, key=first.count)

    def all_lines() -> Iterator[str]:
        yield first
        yield from text

    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    reader = csv.reader(all_lines(), delimiter=delimiter, strict=True)
    try:
        for record in reader:
            if record:
                yield record
    except csv.Error as error:
        raise InvalidDataset(f"Line {reader.line_num}: {error}.", reason="csv_invalid") from error


def _checked_header(header: list[str]) -> list[str]:
    names = [name.strip() for name in header]
    if len(set(names)) != len(names):
        raise InvalidDataset("Two columns have the same name.", reason="csv_header")
    if "" in names[1:]:
        raise InvalidDataset("A column has no name.", reason="csv_header")
    numbered = names == [str(index) for index in range(len(names))]
    if all(_is_number(name) for name in names) and not numbered:
        raise InvalidDataset("The first line holds numbers instead of column names.", reason="csv_header")
    return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _append(columns: dict[str, Column], record: list[str], number: int) -> None:
    if len(record) != len(columns):
        raise InvalidDataset(
            f"Record {number} has {len(record)} fields; the header has {len(columns)}.", reason="csv_ragged"
        )
    for (name, column), cell in zip(columns.items(), record, strict=True):
        if isinstance(column, list):
            column.append(cell)
        else:
            column.append(_number(cell, name, number))


def _number(cell: str, name: str, number: int) -> float:
    """A cell as float64; an empty one is a missing value."""
    try:
        value = float(cell) if cell.strip() else math.nan
    except ValueError as error:
        raise InvalidDataset(
            f"Record {number}, column {name[:120]!r}: {ascii(cell)[:60]} is not a number.",
            reason="csv_not_numeric",
            hint="Encode categories as numbers, or set target_column if this is the label.",
        ) from error
    if math.isinf(value):
        raise InvalidDataset(f"Record {number}, column {name[:120]!r} is infinite.", reason="csv_not_finite")
    return value


def _as_array(name: str, column: Column, target: str | None) -> Array:
    if isinstance(column, array):
        return np.frombuffer(column, dtype=np.float64) if column else np.empty(0)
    return parse_labels(column) if name == target else np.array(column, dtype=object)


def _has_gaps(values: Array) -> bool:
    return values.dtype.kind == "f" and bool(np.isnan(values).any())
