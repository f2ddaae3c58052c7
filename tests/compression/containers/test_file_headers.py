import io
import json
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import save_file

from workers.compression.specs.containers.npz_headers import read_npz_headers
from workers.compression.specs.containers.safetensors_header import read_header
from workers.compression.specs.errors import EngineError, InvalidDataset, InvalidModel, TooLarge, UnsafeModel


def safetensors(path: Path, header: Any, data: bytes = bytes(8)) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def tensor(start: int = 0, end: int = 8, shape: tuple[int, ...] = (2,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("header", "error"),
    [
        (
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
            InvalidModel,
        ),
        ({"../../etc/x": tensor()}, UnsafeModel),
        ({"nul\0": tensor()}, UnsafeModel),
        ({"x" * 300: tensor()}, UnsafeModel),
        ({"a": tensor(), "b": tensor(8, 8, (0, 1 << 40))}, TooLarge),
        ({"a": tensor(shape=(1,) * 9, end=4)}, TooLarge),
        ({"a": tensor(), "b": tensor()}, InvalidModel),
        ({"a": tensor(4, 12)}, InvalidModel),
        ({"a": tensor(0, 4, (1,))}, InvalidModel),
        ({"a": tensor(shape=(3,))}, InvalidModel),
        ({"a": tensor(-8, 0)}, InvalidModel),
        ({"a": tensor(dtype="PICKLE")}, InvalidModel),
        ({"a": tensor() | {"dtype": ["F32"]}}, InvalidModel),
        ({"a": tensor() | {"extra": 1}}, InvalidModel),
        ({"a": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}, InvalidModel),
        ({"a": tensor(), "__metadata__": {"n": 1}}, InvalidModel),
        (b"[" * 1000, InvalidModel),
        ({f"t{index}": tensor(8, 8, (0,)) for index in range(20_001)} | {"a": tensor()}, TooLarge),
    ],
)
def test_what_the_library_lets_pass_or_might_is_refused(tmp_path: Path, header: Any, error: type[EngineError]) -> None:
    with pytest.raises(error):
        read_header(safetensors(tmp_path / "m", header))


def test_a_header_longer_than_its_file_is_invalid(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(InvalidModel):
        read_header(tmp_path / "m")


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z_.]{1,20}", fullmatch=True).filter(lambda name: ".." not in name),
        arrays.arrays(np.float32, arrays.array_shapes(min_dims=0, max_dims=3, max_side=4)),
        min_size=1,
        max_size=5,
    )
)
def test_every_file_the_library_writes_passes_and_offsets_point_at_the_values(tensors: dict[str, np.ndarray]) -> None:
    path = Path(tempfile.mkdtemp()) / "m.safetensors"
    save_file(tensors, path)
    raw = path.read_bytes()
    found = {entry.name: entry for entry in read_header(path).tensors}
    assert found.keys() == tensors.keys()
    for name, values in tensors.items():
        assert found[name].shape == values.shape
        assert raw[found[name].start : found[name].end] == values.tobytes()


def npz(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def npy(header: str, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + body


FOUR_TIB = "{'descr': '<f8', 'fortran_order': False, 'shape': (549755813888,), }"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (npy(FOUR_TIB), "npz_header"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"x" * 8), "npz_object_dtype"),
        (npy("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }", b"x" * 8), "npz_object_dtype"),
        (npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", b"x" * 8), "npz_object_dtype"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }", b"x" * 8), "npz_header"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (True,), }", b"x" * 8), "npz_header"),
        (npy("__import__('os').system('true')"), "npz_header"),
        (npy("(" * 5000), "npz_header"),
        (npy(FOUR_TIB + " " * 20_000), "npz_header"),
        (b"\x80\x04N.", "npz_header"),
        (b"", "npz_header"),
    ],
)
def test_lying_and_unsafe_array_headers_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(InvalidDataset) as refusal:
        read_npz_headers(npz(tmp_path / "d.npz", {"input": content}))
    assert refusal.value.reason == reason


@settings(max_examples=40, deadline=None)
@given(
    arrays.arrays(
        st.sampled_from(["<f4", ">f8", "|i1", "<u8", "|b1", "<U3", "<f2"]),
        arrays.array_shapes(min_dims=0, max_dims=3, max_side=4),
    )
)
def test_headers_say_what_numpy_says(values: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, values=values)
    path = Path(tempfile.mkdtemp()) / "d.npz"
    path.write_bytes(buffer.getvalue())
    (header,) = read_npz_headers(path)
    assert (np.dtype(header.dtype), header.shape, header.name) == (values.dtype, values.shape, "values")
