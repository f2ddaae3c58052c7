import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.compression.specs.containers.json_limits import parse_json
from workers.compression.specs.errors import InvalidDataset

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_ordinary_json_parses_as_the_standard_library_does(value: object) -> None:
    text = json.dumps(value).encode()
    assert parse_json(text, InvalidDataset) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "json_too_deep"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "json_too_deep"),
        (b"[]" * 1_000_001, "json_too_deep"),
        (b'{"a": 1, "a": 2}', "json_duplicate_key"),
        (b'{"a": NaN}', "json_not_finite"),
        (b"[-Infinity]", "json_not_finite"),
        (b"[1e999]", "json_not_finite"),
        (b"[" + b"9" * 5000 + b"]", "json_number_too_long"),
        (b'["\xff"]', "json_invalid"),
        (b'["never ends', "json_invalid"),
        (b"", "json_invalid"),
    ],
)
def test_hostile_json_is_refused_with_its_reason(text: bytes, reason: str) -> None:
    with pytest.raises(InvalidDataset) as refusal:
        parse_json(text, InvalidDataset)
    assert refusal.value.reason == reason


def test_brackets_inside_strings_are_no_depth() -> None:
    assert parse_json(json.dumps({"a": "[{" * 1000, "b": '\\"[['}).encode(), InvalidDataset)["a"] == "[{" * 1000


def test_escaped_quotes_do_not_make_the_depth_scan_quadratic() -> None:
    with pytest.raises(InvalidDataset):
        parse_json(b'["' + b'\\"' * 2_000_000, InvalidDataset)
