"""Text datasets that lie about their form or explode in a parser."""

import json
from pathlib import Path

from tests.hostile.cases import READY, Catalogue

CSV = Catalogue("csv", "dataset", "data.csv")
JSONL = Catalogue("jsonl", "dataset", "data.jsonl")

TABLE = b"a,b,target\n" + b"".join(b"%d.5,%d,%d\n" % (row, row % 7, row % 2) for row in range(40))
LINES = b"".join(b'{"text": "line %d", "target": %d}\n' % (row, row % 2) for row in range(40))


@CSV.accepted()
def table(_: Path) -> bytes:
    return TABLE


@CSV.accepted()
def table_with_a_byte_order_mark(_: Path) -> bytes:
    return b"\xef\xbb\xbf" + TABLE


@CSV.refused("invalid_dataset", "too_large", reason="csv_*|dataset_too_large")
def field_of_two_megabytes(_: Path) -> bytes:
    return TABLE + b"1.5,2," + b"9" * (2 << 20) + b"\n"


@CSV.refused("invalid_dataset", "too_large", reason="csv_*|dataset_too_large")
def quote_that_never_closes(_: Path) -> bytes:
    return TABLE + b'1.5,2,"' + b"1,\n" * 700_000


@CSV.refused("invalid_dataset", "too_large", READY, reason="csv_*|dataset_too_large")
def a_hundred_thousand_columns(_: Path) -> bytes:
    columns = ",".join(f"c{index}" for index in range(100_000))
    return f"{columns}\n{'1,' * 99_999}1\n".encode()


@CSV.refused("invalid_dataset", reason="csv_*")
def rows_of_unequal_length(_: Path) -> bytes:
    return TABLE + b"1.5,2\n1,2,3,4,5\n"


@CSV.refused("invalid_dataset", reason="csv_*")
def two_columns_of_one_name(_: Path) -> bytes:
    return TABLE.replace(b"a,b,target", b"a,a,target")


@CSV.refused("invalid_dataset", "unsupported_format", reason="csv_*|format_*")
def not_utf8(_: Path) -> bytes:
    return TABLE + b"1.5,\xff\xfe,1\n"


@CSV.refused("invalid_dataset", "unsupported_format", reason="csv_*|format_*")
def nul_bytes(_: Path) -> bytes:
    return TABLE + b"1.5,\x00\x00,1\n"


@CSV.refused("invalid_dataset", reason="csv_*")
def words_where_numbers_belong(_: Path) -> bytes:
    return TABLE + b"=cmd|' /C calc'!A0,2,1\n"


@CSV.refused("invalid_dataset", reason="csv_*|dataset_empty")
def header_alone(_: Path) -> bytes:
    return b"a,b,target\n"


@CSV.refused("invalid_dataset", "unsupported_format")
def zero_bytes(_: Path) -> bytes:
    return b""


@JSONL.accepted()
def labelled_text(_: Path) -> bytes:
    return LINES


@JSONL.accepted()
def similarity_pairs(_: Path) -> bytes:
    pair = {"text_a": "a cat", "text_b": "a kitten", "target": 0.9}
    return (json.dumps(pair) + "\n").encode() * 20


@JSONL.refused("invalid_dataset", "too_large", reason="jsonl_*|json_*|dataset_too_large")
def line_of_three_megabytes(_: Path) -> bytes:
    return LINES + json.dumps({"text": "x" * (3 << 20), "target": 1}).encode() + b"\n"


@JSONL.refused("invalid_dataset", "too_large", reason="jsonl_*|json_*")
def nested_100_000_deep(_: Path) -> bytes:
    return LINES + b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b', "target": 1}\n'


@JSONL.refused("invalid_dataset", "too_large", reason="jsonl_*|json_*")
def nested_where_inputs_stand(_: Path) -> bytes:
    return b'{"inputs": {"x": ' + b"[" * 100_000 + b"]" * 100_000 + b'}, "target": 1}\n'


@JSONL.refused("invalid_dataset", reason="jsonl_*|json_*")
def target_that_is_not_a_number(_: Path) -> bytes:
    return LINES + b'{"text": "x", "target": NaN}\n'


@JSONL.refused("invalid_dataset", reason="jsonl_*|json_*")
def target_that_is_infinite(_: Path) -> bytes:
    return LINES + b'{"text": "x", "target": -Infinity}\n'


@JSONL.refused("invalid_dataset", reason="jsonl_*|json_*")
def target_of_100_000_digits(_: Path) -> bytes:
    return LINES + b'{"text": "x", "target": ' + b"9" * 100_000 + b"}\n"


@JSONL.refused("invalid_dataset", reason="jsonl_*|json_*")
def key_twice(_: Path) -> bytes:
    return LINES + b'{"text": "x", "text": "y", "target": 1}\n'


@JSONL.refused("invalid_dataset", reason="jsonl_*|json_*")
def lines_of_unlike_form(_: Path) -> bytes:
    return LINES + b'{"text_a": "x", "text_b": "y", "target": 1}\n'


@JSONL.refused("invalid_dataset", "unsupported_format", reason="jsonl_*|json_*|format_*|csv_*")
def line_that_is_not_utf8(_: Path) -> bytes:
    return LINES + b'{"text": "\xff\xfe", "target": 1}\n'


@JSONL.refused("invalid_dataset", reason="jsonl_*|json_*")
def line_that_is_a_list(_: Path) -> bytes:
    return LINES + b'["text", 1]\n'


@JSONL.refused("invalid_dataset", reason="jsonl_*|json_*")
def ragged_inputs(_: Path) -> bytes:
    return b'{"inputs": {"x": [[1, 2], [3]]}, "target": 1}\n' * 3


@JSONL.refused("invalid_dataset", reason="jsonl_*|json_*")
def cut_off(_: Path) -> bytes:
    return LINES[:-12]


@JSONL.refused("invalid_dataset", READY)
def text_with_a_lone_surrogate(_: Path) -> bytes:
    return LINES + b'{"text": "\\ud800", "target": 1}\n'
