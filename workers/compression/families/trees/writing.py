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

from workers.compression.families.trees.entries import FIRST_NUMBER, SCHEMA, entry_name, zipped


def skops_bytes(estimator: Any, compression: int) -> bytes:
    """The estimator as skops stores it, entries compressed by the ZIP method ``compression``."""
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(estimator))) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(contents.pop(SCHEMA))
    files: dict[str, str] = {}
    _renumber(schema, {}, files)
    return zipped((_without_padding(contents[old]) for old in files), schema, compression)


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
            node["__id__"] = numbers.setdefault(key, FIRST_NUMBER + len(numbers))
        if isinstance(node.get("file"), str):
            name = node["file"]
            files.setdefault(name, entry_name(len(files)))
            node["file"] = files[name]
        for value in node.values():
            _renumber(value, numbers, files)
