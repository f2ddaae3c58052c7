"""The ZIP container of a .skops file that this program wrote: every byte follows from the contents."""

import io
import json
import zipfile
from collections.abc import Iterable
from typing import Any

SCHEMA = "schema.json"
FIRST_NUMBER = 10**14
_DATE = (1980, 1, 1, 0, 0, 0)


def entry_name(place: int) -> str:
    """Name of the array that the schema mentions as the ``place``-th, from 0 on."""
    return f"{FIRST_NUMBER + place}.npy"


def zipped(contents: Iterable[bytes], schema: Any, compression: int) -> bytes:
    """The arrays in order of their first use, then the schema.

    Args:
        contents: .npy files.
        schema: What ``schema.json`` holds.
        compression: The ZIP method.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for place, content in enumerate(contents):
            archive.writestr(_entry(entry_name(place), compression), content)
        archive.writestr(_entry(SCHEMA, compression), json.dumps(schema, indent=2))
    return out.getvalue()


def _entry(name: str, compression: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.compress_type = compression
    entry.external_attr = 0o100600 << 16
    entry.create_system = 3
    return entry
