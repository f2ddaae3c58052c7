"""Arrays in an .npz: named like the model's inputs, first axis rows, labels in ``target``, 0-d arrays constants."""

import zipfile
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from workers.compression.datasets.columns import TEXT_COLUMNS, target_name
from workers.compression.datasets.source import Array, Arrays, Rows, Source, check_rows, port_of
from workers.compression.specs.containers.npz_headers import ArrayHeader, read_npz_headers
from workers.compression.specs.errors import InvalidDataset
from workers.compression.specs.formats import DatasetFormat
from workers.compression.specs.job import DatasetFields


def open_source(path: Path, fields: DatasetFields) -> Source:
    """Opens the arrays: stored ones are mapped into memory, deflated ones are read once."""
    headers = {header.name: header for header in read_npz_headers(path)}
    if not headers:
        raise InvalidDataset("The .npz holds no arrays.", reason="dataset_empty")
    target = target_name(list(headers), fields)
    arrays = {name: _load(path, header) for name, header in headers.items()}
    labels = arrays.pop(target) if target is not None else None
    features = {name: values for name, values in arrays.items() if values.ndim}
    constants = {name: values for name, values in arrays.items() if not values.ndim}
    if not features:
        raise InvalidDataset("The .npz has no array with rows besides its target.", reason="dataset_empty")
    _check_arrays(features, labels, target)

    def read(chosen: Rows) -> Arrays:
        return {name: _rows(values, chosen) for name, values in features.items()}

    return Source(
        format=DatasetFormat.NPZ,
        rows=len(next(iter(features.values()))),
        features=tuple(port_of(name, values) for name, values in arrays.items()),
        read=read,
        target=_labels(labels) if labels is not None else None,
        target_name=target or "target",
        integer_labels=True,
        constants=constants,
    )


def _labels(values: Array) -> Array:
    labels = np.asarray(values)
    return labels.astype(object) if labels.dtype.kind == "U" else labels


def _rows(values: Array, chosen: Rows) -> Array:
    picked = np.asarray(values[chosen])
    return picked.astype(object) if picked.dtype.kind == "U" else picked


def _check_arrays(features: Arrays, labels: Array | None, target: str | None) -> None:
    counts = {name: len(values) for name, values in features.items()}
    if labels is not None:
        if not labels.ndim:
            raise InvalidDataset("The target is a single value, not one per row.", reason="npz_rows")
        counts[str(target)] = len(labels)
    if len(set(counts.values())) != 1:
        shown = ", ".join(f"{name[:60]}: {count}" for name, count in list(counts.items())[:20])
        raise InvalidDataset(f"The arrays have different numbers of rows ({shown}).", reason="npz_rows")
    check_rows(next(iter(counts.values())))
    texts = [name for name, values in features.items() if values.dtype.kind == "U"]
    if any(name not in TEXT_COLUMNS for name in texts):
        raise InvalidDataset(f"Array {texts[0][:120]!r} holds text.", reason="column_not_numeric")


def _load(path: Path, header: ArrayHeader) -> Array:
    dtype: np.dtype[np.generic] = np.dtype(header.dtype)
    order: Literal["C", "F"] = "F" if header.fortran_order else "C"
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(header.entry)
        if header.stored and header.shape and 0 not in header.shape:
            offset = _data_offset(path, entry) + header.values_offset
            return np.memmap(path, dtype, "r", offset=offset, shape=header.shape, order=order)
        try:
            with archive.open(entry) as file:
                file.read(header.values_offset)
                values = np.frombuffer(file.read(), dtype=dtype)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise InvalidDataset(f"Array {header.name[:120]!r} is damaged.", reason="npz_header") from error
    return values.reshape(header.shape, order=order)


def _data_offset(path: Path, entry: zipfile.ZipInfo) -> int:
    """Where the entry's bytes begin: behind its local header, whose name and extra field vary in length."""
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)
        lengths = file.read(4)
    return entry.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
