"""A dataset held as named columns in memory: the common end of csv, parquet and jsonl."""

import numpy as np

from workers.compression.datasets.source import Array, Arrays, Rows, Source, check_rows, port_of
from workers.compression.specs.errors import InvalidDataset
from workers.compression.specs.formats import DatasetFormat
from workers.compression.specs.job import DatasetFields

TEXT_COLUMNS = ("text", "text_a", "text_b")


def target_name(names: list[str], fields: DatasetFields) -> str | None:
    """The label's column: the one the user named, else ``target``, else none.

    Raises:
        InvalidDataset: ``target_missing`` if the named one is not there.
    """
    if fields.target_column is None:
        return "target" if "target" in names else None
    if fields.target_column not in names:
        shown = ", ".join(ascii(name)[:60] for name in names[:20])
        raise InvalidDataset(
            f"There is no column {fields.target_column!r}; there are {shown}.", reason="target_missing"
        )
    return fields.target_column


def from_columns(
    dataset_format: DatasetFormat,
    columns: Arrays,
    target: str | None,
    *,
    integer_labels: bool = False,
    warnings: tuple[str, ...] = (),
) -> Source:
    """The source over ``columns``, whose first axes agree; the one named ``target`` is the label."""
    used = served_features(columns, target)
    label = columns[target] if target is not None else None

    def read(chosen: Rows) -> Arrays:
        return {name: values[chosen] for name, values in used.items()}

    return Source(
        format=dataset_format,
        rows=len(next(iter(used.values()))),
        features=tuple(port_of(name, values) for name, values in used.items()),
        read=read,
        target=label,
        target_name=target or "target",
        integer_labels=integer_labels,
        warnings=warnings,
    )


def served_features(columns: Arrays, target: str | None) -> Arrays:
    """The columns that feed a model: the texts where there are any, else the numbers.

    Raises:
        InvalidDataset: ``dataset_empty``, ``column_not_numeric``.
    """
    features = {name: values for name, values in columns.items() if name != target}
    if not features:
        raise InvalidDataset("The dataset has no feature besides its target.", reason="dataset_empty")
    check_rows(len(next(iter(features.values()))))
    texts = {name: values for name, values in features.items() if values.dtype.kind in "OU"}
    for name in texts:
        if name not in TEXT_COLUMNS:
            raise InvalidDataset(
                f"Column {name[:120]!r} is neither numeric nor named text, text_a or text_b.",
                reason="column_not_numeric",
                hint="Encode categories as numbers, or set target_column if this is the label.",
            )
    return texts or features


def parse_labels(texts: list[str]) -> Array:
    """Labels written as text: integers if all are, else numbers if all are, else the texts themselves."""
    for kind in (int, float):
        try:
            return np.array([kind(text) for text in texts], dtype=np.dtype(kind))
        except (ValueError, OverflowError):
            continue
    return np.array(texts, dtype=object)
