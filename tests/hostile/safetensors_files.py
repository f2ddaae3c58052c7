"""Safetensors files whose header lies."""

import json
import struct
from pathlib import Path
from typing import Any

from tests.hostile.cases import READY, Catalogue

SAFETENSORS = Catalogue("safetensors", "model", "model.safetensors")

Header = dict[str, Any]


def entry(shape: list[Any], start: Any, end: Any, dtype: str = "F32") -> Header:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def file_of(header: Header | bytes, data: bytes, length: int | None = None) -> bytes:
    """A file with this header, whatever it says; ``length`` overrides the header length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def floats(count: int, value: float = 0.5) -> bytes:
    return struct.pack("<f", value) * count


def sound() -> Header:
    return {"layer.weight": entry([4, 4], 0, 64), "layer.bias": entry([4], 64, 80)}


@SAFETENSORS.accepted()
def two_tensors(_: Path) -> bytes:
    return file_of(sound(), floats(20))


@SAFETENSORS.accepted()
def metadata_of_strings(_: Path) -> bytes:
    return file_of({"__metadata__": {"format": "pt"}} | sound(), floats(20))


@SAFETENSORS.accepted()
def a_scalar_and_an_empty_tensor(_: Path) -> bytes:
    header = sound() | {"scale": entry([], 80, 84), "empty": entry([0, 4], 84, 84)}
    return file_of(header, floats(21))


@SAFETENSORS.refused("invalid_model", "too_large", "unsupported_format")
def header_length_of_2_to_the_63(_: Path) -> bytes:
    return file_of(sound(), floats(20), length=(1 << 63) - 1)


@SAFETENSORS.refused("invalid_model", "too_large", "unsupported_format")
def header_length_of_100_megabytes(_: Path) -> bytes:
    return file_of(sound(), floats(20), length=100 << 20)


@SAFETENSORS.refused("too_large", "invalid_model", reason="safetensors_*|tensor_too_large")
def header_of_17_megabytes(_: Path) -> bytes:
    text = json.dumps(sound()).encode()
    return file_of(text + b" " * (17 << 20), floats(20))


@SAFETENSORS.refused("invalid_model", "unsupported_format")
def header_length_of_zero(_: Path) -> bytes:
    return file_of(b"", floats(20))


@SAFETENSORS.refused("invalid_model", reason="safetensors_*")
def overlapping_tensors(_: Path) -> bytes:
    return file_of({"a": entry([4, 4], 0, 64), "b": entry([4], 48, 64)}, floats(16))


@SAFETENSORS.refused("invalid_model", reason="safetensors_*")
def two_names_for_the_same_bytes(_: Path) -> bytes:
    return file_of({"a": entry([16], 0, 64), "b": entry([16], 0, 64)}, floats(16))


@SAFETENSORS.refused("invalid_model", reason="safetensors_*")
def gap_between_tensors(_: Path) -> bytes:
    return file_of({"a": entry([4], 0, 16), "b": entry([4], 64, 80)}, floats(20))


@SAFETENSORS.refused("invalid_model", reason="safetensors_*")
def hidden_bytes_before_the_first_tensor(_: Path) -> bytes:
    return file_of({"a": entry([4], 16, 32)}, b"\x80\x04cos\nsystem\n." + bytes(17))


@SAFETENSORS.refused("invalid_model", reason="safetensors_*")
def trailing_bytes(_: Path) -> bytes:
    return file_of(sound(), floats(20) + b"PK\x03\x04hidden")


@SAFETENSORS.refused("invalid_model", reason="safetensors_*")
def offsets_beyond_the_file(_: Path) -> bytes:
    return file_of({"a": entry([1 << 20], 0, 4 << 20)}, floats(4))


@SAFETENSORS.refused("invalid_model", reason="safetensors_*")
def offsets_in_reverse(_: Path) -> bytes:
    return file_of({"a": entry([4], 16, 0)}, floats(4))


@SAFETENSORS.refused("invalid_model", reason="safetensors_*")
def negative_offsets(_: Path) -> bytes:
    return file_of({"a": entry([4], -16, 0)}, floats(4))


@SAFETENSORS.refused("invalid_model", reason="safetensors_*")
def fractional_offsets(_: Path) -> bytes:
    return file_of({"a": entry([4], 0.0, 16.5)}, floats(4))


@SAFETENSORS.refused("invalid_model", reason="safetensors_*")
def shape_that_does_not_fit_the_bytes(_: Path) -> bytes:
    return file_of({"a": entry([3, 5], 0, 64)}, floats(16))


@SAFETENSORS.refused("invalid_model", "too_large", reason="safetensors_*|tensor_too_large")
def shape_that_overflows(_: Path) -> bytes:
    return file_of({"a": entry([1 << 32, 1 << 32, 4], 0, 16)}, floats(4))


@SAFETENSORS.refused("invalid_model", "too_large", reason="safetensors_*|tensor_too_large")
def empty_tensor_of_2_to_the_40_columns(_: Path) -> bytes:
    return file_of(sound() | {"z": entry([0, 1 << 40], 80, 80)}, floats(20))


@SAFETENSORS.refused("invalid_model", reason="safetensors_*")
def negative_dimension(_: Path) -> bytes:
    return file_of({"a": entry([-4, -4], 0, 64)}, floats(16))


@SAFETENSORS.refused("invalid_model", reason="safetensors_*")
def dimension_that_is_true(_: Path) -> bytes:
    return file_of({"a": entry([True], 0, 4)}, floats(1))


@SAFETENSORS.refused("invalid_model", "too_large", reason="safetensors_*|tensor_too_large")
def tensor_of_rank_40(_: Path) -> bytes:
    return file_of({"a": entry([1] * 40, 0, 4)}, floats(1))


@SAFETENSORS.refused("invalid_model", reason="safetensors_*")
def unknown_dtype(_: Path) -> bytes:
    return file_of({"a": entry([4], 0, 16, dtype="OBJECT")}, floats(4))


@SAFETENSORS.refused("invalid_model", reason="safetensors_*")
def unknown_field_in_an_entry(_: Path) -> bytes:
    return file_of({"a": entry([4], 0, 16) | {"__reduce__": "os.system"}}, floats(4))


@SAFETENSORS.refused("invalid_model", "unsafe_model", reason="safetensors_*|json_duplicate_key")
def duplicate_names(_: Path) -> bytes:
    first, second = json.dumps(entry([4], 0, 16)), json.dumps(entry([4], 16, 32))
    return file_of(f'{{"a": {first}, "a": {second}}}'.encode(), floats(8))


@SAFETENSORS.refused("invalid_model", "unsafe_model", reason="safetensors_*")
def name_that_is_a_path(_: Path) -> bytes:
    return file_of({"../../etc/cron.d/x": entry([4], 0, 16)}, floats(4))


@SAFETENSORS.refused("invalid_model", "unsafe_model", reason="safetensors_*")
def name_with_a_nul(_: Path) -> bytes:
    return file_of({"a\x00.weight": entry([4], 0, 16)}, floats(4))


@SAFETENSORS.refused("invalid_model", "unsafe_model", reason="safetensors_*")
def name_with_a_lone_surrogate(_: Path) -> bytes:
    return file_of({"a\ud800": entry([4], 0, 16)}, floats(4))


@SAFETENSORS.refused("invalid_model", "unsafe_model", "too_large", reason="safetensors_*")
def name_of_100_000_letters(_: Path) -> bytes:
    return file_of({"a" * 100_000: entry([4], 0, 16)}, floats(4))


@SAFETENSORS.refused("too_large", "invalid_model", reason="safetensors_*|tensor_too_large|too_many_tensors")
def thirty_thousand_tensors(_: Path) -> bytes:
    return file_of({f"t{index}": entry([1], 4 * index, 4 * index + 4) for index in range(30_000)}, floats(30_000))


@SAFETENSORS.refused("invalid_model", reason="safetensors_*")
def metadata_that_is_not_text(_: Path) -> bytes:
    return file_of({"__metadata__": {"format": ["pt", {"x": 1}]}} | sound(), floats(20))


@SAFETENSORS.refused("invalid_model", "unsupported_format", reason="safetensors_*|json_*|format_*")
def header_nested_100_000_deep(_: Path) -> bytes:
    return file_of(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", floats(4))


@SAFETENSORS.refused("invalid_model", reason="safetensors_*|json_*")
def offset_of_100_000_digits(_: Path) -> bytes:
    text = b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,' + b"9" * 100_000 + b"]}}"
    return file_of(text, floats(4))


@SAFETENSORS.refused("invalid_model", reason="safetensors_*|json_*")
def dimension_that_is_not_a_number(_: Path) -> bytes:
    return file_of(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}}', floats(4))


@SAFETENSORS.refused("invalid_model", "unsupported_format", reason="safetensors_*|json_*|format_*")
def header_that_is_a_list(_: Path) -> bytes:
    return file_of(b"[1, 2, 3]", floats(4))


@SAFETENSORS.refused("invalid_model", "unsupported_format", reason="safetensors_*|json_*|format_*")
def header_that_is_not_utf8(_: Path) -> bytes:
    return file_of(b'{"a\xff\xfe": 1}', floats(4))


@SAFETENSORS.refused("invalid_model", "unsupported_format")
def header_without_tensors(_: Path) -> bytes:
    return file_of({"__metadata__": {"format": "pt"}}, b"")


@SAFETENSORS.refused("invalid_model", reason="safetensors_*")
def truncated(_: Path) -> bytes:
    return file_of(sound(), floats(20))[:-30]


@SAFETENSORS.refused("invalid_model", "unsupported_format")
def five_bytes(_: Path) -> bytes:
    return b"\x10\x00\x00\x00\x00"


@SAFETENSORS.refused("invalid_model", READY)
def weights_that_are_not_finite(_: Path) -> bytes:
    return file_of(sound(), floats(10, float("nan")) + floats(10, float("inf")))
