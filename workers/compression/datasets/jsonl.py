"""One JSON object per line: text, pairs of text, arrays by input name, or flat columns."""

from pathlib import Path
from typing import Any

import numpy as np

from workers.compression.datasets.columns import from_columns, target_name
from workers.compression.datasets.source import Array, Source, check_decoded, check_rows
from workers.compression.datasets.text_lines import lines
from workers.compression.specs.containers.json_limits import parse_json
from workers.compression.specs.errors import InvalidDataset
from workers.compression.specs.formats import DatasetFormat
from workers.compression.specs.job import DatasetFields

MAX_FIELDS = 10_000


def open_source(path: Path, fields: DatasetFields) -> Source:
    """Reads every line.

    Raises:
        InvalidDataset: ``jsonl_encoding``, ``jsonl_invalid``, ``jsonl_inconsistent``, ``jsonl_value``, ``json_*``.
        TooLarge: ``jsonl_line_too_long``, ``dataset_too_large``.
    """
    collected: dict[str, list[Any]] = {}
    size = 0
    for number, line in enumerate(lines(path, "jsonl"), start=1):
        if not line.strip():
            continue
        size += 4 * len(line)
        check_decoded(size)
        check_rows(number)
        _collect(collected, _parse(line, number), number)
    if not collected:
        raise InvalidDataset("The file holds no rows.", reason="dataset_empty")
    target = target_name(list(collected), fields)
    columns = {
        name: _as_labels(name, values) if name == target else _as_array(name, values)
        for name, values in collected.items()
    }
    return from_columns(DatasetFormat.JSONL, columns, target)


def _parse(line: bytes, number: int) -> dict[str, Any]:
    """The row's fields, ``inputs`` flattened into them."""
    row = parse_json(line, InvalidDataset)
    if not isinstance(row, dict):
        raise InvalidDataset(f"Line {number} is not a JSON object.", reason="jsonl_invalid")
    inputs = row.pop("inputs", {})
    if not isinstance(inputs, dict) or inputs.keys() & row.keys() or len(inputs) + len(row) > MAX_FIELDS:
        raise InvalidDataset(f"Line {number} has inputs that are no object of arrays.", reason="jsonl_invalid")
    return inputs | row


def _collect(collected: dict[str, list[Any]], row: dict[str, Any], number: int) -> None:
    if not collected:
        collected.update({name: [] for name in row})
    if row.keys() != collected.keys():
        raise InvalidDataset(f"Line {number} has other fields than the first line.", reason="jsonl_inconsistent")
    for name, value in row.items():
        collected[name].append(value)


def _as_labels(name: str, values: list[Any]) -> Array:
    """Labels with nulls stay objects, so that the rows without a label can be told."""
    return np.array(values, dtype=object) if None in values else _as_array(name, values)


def _as_array(name: str, values: list[Any]) -> Array:
    if all(isinstance(value, str) for value in values):
        return np.array(values, dtype=object)
    try:
        numbers = np.array(values)
    except (ValueError, OverflowError) as error:
        raise InvalidDataset(
            f"Field {name[:120]!r} has a different shape from row to row.", reason="jsonl_inconsistent"
        ) from error
    if numbers.dtype.kind not in "biuf":
        raise InvalidDataset(f"Field {name[:120]!r} is not numeric throughout.", reason="jsonl_value")
    return numbers
