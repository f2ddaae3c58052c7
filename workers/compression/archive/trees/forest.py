"""A whole .skops file of scikit-learn's trees as columns: the block codec ``trees``, described in ``docs/prsz.md``."""

import zipfile
from collections.abc import Sequence
from os import SEEK_END
from typing import Any, BinaryIO

import numpy as np

from workers.compression.archive import codecs
from workers.compression.archive.trees import arrays
from workers.compression.archive.trees.gathered import Gathered, coded
from workers.compression.archive.trees.gathering import gather
from workers.compression.archive.trees.rebuilding import rebuilt
from workers.compression.archive.trees.schema import restored, shortened
from workers.compression.coding.byte_stream import Reader, broken, varint
from workers.compression.coding.range_coder import RangeCoder, RangeReader, RangeWriter
from workers.compression.families.trees.entries import SCHEMA, entry_name, zipped
from workers.compression.specs.containers.json_limits import parse_json
from workers.compression.specs.errors import InvalidModel

MAX_BYTES = 128 << 20
"""Of a file that is coded as a whole, for decoding takes memory for all of it."""

_MAX_REST_BYTES = 64 << 20
_LEAST_ENTRY = 64


def encode(file: BinaryIO) -> bytes | None:
    """The file as columns; None unless it is just what this program writes of a forest in preorder, not deflated."""
    opened = _opened(file)
    if opened is None:
        return None
    entries, schema = opened
    trees, kinds, distinct = _sorted_out(entries)
    gathered = gather(trees) if trees else None
    if gathered is None:
        return None
    text = shortened(schema, _facts(gathered))
    rest = b"".join([varint(len(text)), text, *(varint(len(entry)) + entry for entry in distinct)])
    codec, packed = codecs.encode(rest, 1)
    writer = RangeWriter()
    _order(writer, len(distinct), kinds)
    coded(writer, len(trees), file.seek(0, SEEK_END), gathered)
    return b"".join([bytes([codec]), varint(len(rest)), varint(len(packed)), packed, writer.finish()])


def decode(data: memoryview, size: int) -> bytes:
    """The file of ``size`` bytes.

    Raises:
        InvalidModel: The data is malformed.
    """
    if size > MAX_BYTES:
        raise broken("A forest is larger than a reader has to hold")
    reader = Reader(data)
    codec = reader.byte()
    length = reader.varint(min(size, _MAX_REST_BYTES))
    rest = Reader(codecs.decode(codec, reader.take(reader.varint(length)), length))
    text = bytes(rest.take(rest.varint(rest.left)))
    distinct = []
    while rest.left:
        distinct.append(bytes(rest.take(rest.varint(rest.left))))
    coder = RangeReader(reader.rest())
    kinds = _order(coder, len(distinct), most=size // _LEAST_ENTRY)
    gathered = coded(coder, kinds.count(0), size)
    coder.finish()
    trees = iter(rebuilt(gathered))
    entries: list[bytes] = []
    for kind in kinds:
        entries += [distinct[kind - 1]] if kind else arrays.written(next(trees))
    made = zipped(entries, restored(text, _facts(gathered)), zipfile.ZIP_STORED)
    if len(made) != size:
        raise broken("A forest has another size than stated")
    return made


def _opened(file: BinaryIO) -> tuple[list[bytes], Any] | None:
    """The arrays and the schema, if the file follows from them; of others hardly more is read than their names."""
    if not zipfile.is_zipfile(file):
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            plain = all(
                entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits for entry in archive.infolist()
            )
            if not plain or names != [*map(entry_name, range(len(names) - 1)), SCHEMA]:
                return None
            entries = [archive.read(name) for name in names[:-1]]
            schema = parse_json(archive.read(SCHEMA), InvalidModel)
    except (zipfile.BadZipFile, InvalidModel, OSError):
        return None
    file.seek(0)
    return (entries, schema) if zipped(entries, schema, zipfile.ZIP_STORED) == file.read() else None


def _sorted_out(entries: list[bytes]) -> tuple[list[arrays.Tree], list[int], list[bytes]]:
    """Trees; 0 for each of them in order, and for every other entry 1 + its place among the distinct ones."""
    trees: list[arrays.Tree] = []
    kinds: list[int] = []
    places: dict[bytes, int] = {}
    waiting = iter(range(len(entries)))
    for place in waiting:
        tree = arrays.found(*entries[place : place + 2]) if place + 1 < len(entries) else None
        if tree is not None:
            trees.append(tree)
            kinds.append(0)
            next(waiting)
        else:
            kinds.append(1 + places.setdefault(entries[place], len(places)))
    return trees, kinds, list(places)


def _order(coder: RangeCoder, distinct: int, known: Sequence[int] = (), most: int = 0) -> list[int]:
    """Kinds of all entries, by the two before."""
    count = coder.number("entries", len(known))
    if not known and count > most:
        raise broken("There are more entries than their file has room for")
    found = [0, 0]
    for place in range(count):
        found.append(coder.number(("kind", found[-2], found[-1]), known[place] if known else 0))
        if found[-1] > distinct:
            raise broken("There is an entry that is listed nowhere")
    return found[2:]


def _facts(gathered: Gathered) -> list[tuple[int, int]]:
    """Depth and number of nodes of each tree."""
    depths = np.array(gathered.columns.depth, np.int64)
    roots = np.flatnonzero(depths == 0)
    deepest = np.maximum.reduceat(depths, roots) if len(roots) else depths
    return list(zip(deepest.tolist(), np.diff(roots, append=len(depths)).tolist(), strict=True))
