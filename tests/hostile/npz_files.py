"""NumPy archives whose headers lie or whose arrays are pickles."""

import io
import zipfile
from pathlib import Path

import numpy as np

from tests.hostile.cases import READY, Catalogue
from tests.hostile.containers import Entry, deflated_zeros, forged_zip, zip_of
from tests.hostile.pickles import touch

NPZ = Catalogue("npz", "dataset", "data.npz")

REASON = "npz_*"
ARCHIVE = "npz_*|archive_*"


def npy(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=allow_pickle)
    return out.getvalue()


def header(text: str, body: bytes = b"") -> bytes:
    """An array file with this literal as its header."""
    padded = text.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + body


def described(dtype: str, shape: str, body: bytes = b"") -> bytes:
    return header(f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}", body)


def inputs() -> np.ndarray:
    return np.linspace(0, 1, 40, dtype=np.float32).reshape(5, 8)


def beside_inputs(name: str, content: bytes) -> bytes:
    return zip_of({"input.npy": npy(inputs()), name: content})


@NPZ.accepted()
def inputs_and_labels(_: Path) -> bytes:
    return beside_inputs("target.npy", npy(np.array([0, 1, 2, 1, 0])))


@NPZ.accepted()
def compressed(_: Path) -> bytes:
    members = {"input.npy": npy(inputs()), "target.npy": npy(np.array([0, 1, 2, 1, 0]))}
    return zip_of(members, zipfile.ZIP_DEFLATED)


@NPZ.refused("invalid_dataset", "unsafe_model", reason="npz_object_dtype")
def array_of_objects(marker: Path) -> bytes:
    return beside_inputs("target.npy", npy(np.array([touch(marker)] * 5, dtype=object), allow_pickle=True))


@NPZ.refused("invalid_dataset", "unsafe_model", reason="npz_object_dtype|npz_header")
def record_with_an_object_field(_: Path) -> bytes:
    return beside_inputs("target.npy", described("[('a', '|O')]", "(5,)", bytes(40)))


@NPZ.refused("invalid_dataset", "too_large", reason="npz_*|dataset_too_large")
def shape_of_four_terabytes_without_data(_: Path) -> bytes:
    return zip_of({"input.npy": described("'<f4'", "(1099511627776, 1)")})


@NPZ.refused("invalid_dataset", "too_large", reason="npz_*|dataset_too_large")
def shape_that_overflows(_: Path) -> bytes:
    return zip_of({"input.npy": described("'<f4'", "(4294967296, 4294967296)")})


@NPZ.refused("invalid_dataset", reason=REASON)
def negative_shape(_: Path) -> bytes:
    return zip_of({"input.npy": described("'<f4'", "(-5, -8)", bytes(160))})


@NPZ.refused("invalid_dataset", reason=REASON)
def fewer_bytes_than_the_shape_says(_: Path) -> bytes:
    return zip_of({"input.npy": npy(inputs())[:-20]})


@NPZ.refused("invalid_dataset", reason=REASON)
def header_that_is_an_expression(marker: Path) -> bytes:
    return zip_of({"input.npy": header(f"__import__('pathlib').Path({str(marker)!r}).touch()")})


@NPZ.refused("invalid_dataset", "too_large", reason=REASON)
def header_of_60_000_brackets(_: Path) -> bytes:
    return zip_of({"input.npy": header("(" * 30_000 + ")" * 30_000)})


@NPZ.refused("invalid_dataset", reason=REASON)
def not_an_array(_: Path) -> bytes:
    return zip_of({"input.npy": b"hello"})


@NPZ.refused("invalid_dataset", reason=ARCHIVE)
def two_arrays_of_one_name(_: Path) -> bytes:
    entries = [Entry(b"input.npy", npy(inputs())), Entry(b"input.npy", npy(inputs() * 2))]
    return forged_zip(entries)


@NPZ.refused("invalid_dataset", "unsafe_model", reason=ARCHIVE)
def array_name_that_climbs_out(_: Path) -> bytes:
    return beside_inputs("../../outside.npy", npy(inputs()))


@NPZ.refused("invalid_dataset", "unsafe_model", "unsupported_format", reason=ARCHIVE + "|format_refused")
def pickle_beside_the_arrays(_: Path) -> bytes:
    return beside_inputs("extra.pkl", b"\x80\x04K\x01.")


@NPZ.refused("too_large", reason="archive_bomb|npz_*|dataset_too_large")
def three_gigabytes_of_zeros(_: Path) -> bytes:
    head = described("'<f4'", "(805306368,)").ljust(128)
    size = len(head) + (3 << 30)
    squeeze = Entry(b"", head, zipfile.ZIP_DEFLATED)
    stored = _unfinished(squeeze.content) + deflated_zeros(3072)
    return forged_zip([Entry(b"input.npy", method=8, deflated=stored, size=size, crc=0)])


def _unfinished(content: bytes) -> bytes:
    """``content`` as a stored, not final deflate block."""
    length = len(content)
    return b"\x00" + length.to_bytes(2, "little") + (length ^ 0xFFFF).to_bytes(2, "little") + content


@NPZ.refused("too_large", "invalid_dataset", reason=ARCHIVE + "|dataset_too_large")
def two_thousand_arrays(_: Path) -> bytes:
    return zip_of({"input.npy": npy(inputs())} | {f"a{index}.npy": npy(inputs()) for index in range(2_000)})


@NPZ.refused("invalid_dataset", reason="*")
def arrays_of_unequal_rows(_: Path) -> bytes:
    return beside_inputs("target.npy", npy(np.array([0, 1])))


@NPZ.refused("invalid_dataset", "unsupported_format")
def no_arrays(_: Path) -> bytes:
    return zip_of({})


@NPZ.refused("invalid_dataset", READY)
def inputs_that_are_nan(_: Path) -> bytes:
    return zip_of({"input.npy": npy(np.full((5, 8), np.nan, np.float32))})
