"""Parquet files that are small on disk and huge decoded, or carry more than columns of numbers."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.cases import READY, Catalogue
from tests.hostile.pickles import pickled, touch

PARQUET = Catalogue("parquet", "dataset", "data.parquet")

REASON = "parquet_*|dataset_too_large|dataset_empty"


def written(table: pa.Table, **options: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


def rows(count: int = 40) -> pa.Table:
    index = np.arange(count)
    return pa.table({"a": index * 0.5, "b": index % 7, "target": index % 2})


@PARQUET.accepted()
def three_columns(_: Path) -> bytes:
    return written(rows())


@PARQUET.accepted()
def three_columns_compressed(_: Path) -> bytes:
    return written(rows(), compression="zstd")


@PARQUET.refused("too_large", reason=REASON)
def a_hundred_million_equal_rows(_: Path) -> bytes:
    # Run-length encoding keeps a billion equal values in a few hundred bytes; the declared size is as small.
    value = pa.array([0.5], pa.float64())
    block = pa.DictionaryArray.from_arrays(pa.array(np.zeros(5_000_000, np.int8)), value)
    schema = pa.schema([("a", block.type)])
    out = io.BytesIO()
    with pq.ParquetWriter(out, schema, use_dictionary=True, store_schema=False) as writer:
        for _group in range(20):
            writer.write_table(pa.table([block], schema), row_group_size=5_000_000)
    return out.getvalue()


@PARQUET.refused("too_large", "invalid_dataset", reason=REASON)
def long_text_repeated_by_a_dictionary(_: Path) -> bytes:
    text = pa.array(["x" * 100_000])
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), text)
    return written(pa.table({"text": column}))


@PARQUET.refused("too_large", "invalid_dataset", READY, reason=REASON)
def twenty_thousand_columns(_: Path) -> bytes:
    return written(pa.table({f"c{index}": [1.0] for index in range(20_000)}), store_schema=False)


@PARQUET.refused("invalid_dataset", "unsafe_model", reason=REASON)
def extension_type_that_is_a_pickle(marker: Path) -> bytes:
    metadata = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickled(touch(marker)),
    }
    field = pa.field("a", pa.float64(), metadata=metadata)
    return written(pa.table([pa.array([0.5, 1.5])], pa.schema([field])))


@PARQUET.refused("invalid_dataset", READY)
def table_metadata_that_is_a_pickle(marker: Path) -> bytes:
    table = rows().replace_schema_metadata({b"pandas": pickled(touch(marker)), b"huge": b"x" * 100_000})
    return written(table)


@PARQUET.refused("invalid_dataset", reason=REASON)
def columns_of_structures(_: Path) -> bytes:
    return written(pa.table({"a": [{"b": {"c": [1, 2]}}] * 5, "target": [0, 1, 0, 1, 0]}))


@PARQUET.refused("invalid_dataset", reason=REASON)
def footer_length_beyond_the_file(_: Path) -> bytes:
    content = written(rows())
    return content[:-8] + (0x7FFFFFFF).to_bytes(4, "little") + content[-4:]


@PARQUET.refused("invalid_dataset", reason=REASON)
def footer_of_noise(_: Path) -> bytes:
    content = bytearray(written(rows()))
    length = int.from_bytes(content[-8:-4], "little")
    content[-8 - length : -8] = np.random.default_rng(0).bytes(length)
    return bytes(content)


@PARQUET.refused("invalid_dataset", reason=REASON)
def pages_of_noise(_: Path) -> bytes:
    content = bytearray(written(rows(2_000), compression="none", use_dictionary=False))
    content[4:4_000] = np.random.default_rng(0).bytes(3_996)
    return bytes(content)


@PARQUET.refused("invalid_dataset", "unsupported_format", reason=REASON + "|format_*|csv_*")
def cut_off(_: Path) -> bytes:
    return written(rows())[:-100]


@PARQUET.refused("invalid_dataset", reason=REASON)
def no_rows(_: Path) -> bytes:
    return written(rows(0))


@PARQUET.refused("invalid_dataset", "unsupported_format", READY, filename="data.csv")
def named_like_another_format(_: Path) -> bytes:
    return written(rows().replace_schema_metadata({b"note": json.dumps({"a": 1}).encode()}))
