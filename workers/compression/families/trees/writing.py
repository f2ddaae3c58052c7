"""The bytes of a .skops file: same model, same bytes.

skops names its entries and objects after memory addresses and stamps the time of day, so two dumps of one model
differ. The entries are renumbered in the order of their first use; the numbers are as wide as addresses are, so that
an artifact gains nothing by it.
"""

import io
import json
import zipfile
from typing import Any

import numpy as np
import skops.io

from workers.compression.families.trees.gate import SCHEMA

_FIRST_NUMBER = 10**14
_DATE = (1980, 1, 1, 0, 0, 0)


def skops_bytes(estimator: Any, compression: int) -> bytes:
    """The estimator as skops stores it, entries compressed by the ZIP method ``compression``."""
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(estimator))) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(contents.pop(SCHEMA))
    files: dict[str, str] = {}
    _renumber(schema, {}, files)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for old, new in files.items():
            archive.writestr(_entry(new, compression), _without_padding(contents[old]))
        archive.writestr(_entry(SCHEMA, compression), json.dumps(schema, indent=2))
    return out.getvalue()


def _without_padding(content: bytes) -> bytes:
    """An .npy whose records have zeros between their fields; a tree's nodes come with whatever memory held there."""
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if array.dtype.names is None or array.ndim != 1:
        return content
    clean = np.zeros(array.nbytes, np.uint8)
    records = clean.view(array.dtype)
    for field in array.dtype.names:
        records[field] = array[field]
    return content[: len(content) - array.nbytes] + clean.tobytes()


def _entry(name: str, compression: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.compress_type = compression
    entry.external_attr = 0o100600 << 16
    entry.create_system = 3
    return entry


def _renumber(node: Any, numbers: dict[Any, int], files: dict[str, str]) -> None:
    """Gives every ``__id__`` and ``file`` of the schema its number, in place.

    Equal constants get one number: whether two equal floats are one object is Python's affair and changes with the
    way the model came into memory.
    """
    if isinstance(node, list):
        for item in node:
            _renumber(item, numbers, files)
    elif isinstance(node, dict):
        if "__id__" in node:
            constant = node.get("__loader__") in ("JsonNode", "TypeNode")
            key = (node["__class__"], node.get("content")) if constant else node["__id__"]
            node["__id__"] = numbers.setdefault(key, _FIRST_NUMBER + len(numbers))
        if isinstance(node.get("file"), str):
            name = node["file"]
            files.setdefault(name, f"{_FIRST_NUMBER + len(files)}.npy")
            node["file"] = files[name]
        for value in node.values():
            _renumber(value, numbers, files)
