"""Tensors that stay on disk until they are asked for, and the safetensors file format they are written in."""

import json
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch

from workers.compression.families.model import Array
from workers.compression.specs.containers.safetensors_header import TensorEntry, read_header

DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}
_NUMPY_EXTENSIONS = {
    torch.bfloat16: ml_dtypes.bfloat16,
    torch.float8_e4m3fn: ml_dtypes.float8_e4m3fn,
    torch.float8_e5m2: ml_dtypes.float8_e5m2,
}
_TORCH_EXTENSIONS = {np.dtype(theirs): ours for ours, theirs in _NUMPY_EXTENSIONS.items()}
_PIECE = 1 << 18


@dataclass(frozen=True)
class StoredTensor:
    """Dtype and shape of a tensor and the way to its values.

    Args:
        load: All of them.
        stream: The same flat in C order, some at a time, where they take memory once they are loaded.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    load: Callable[[], torch.Tensor]
    stream: Callable[[], Iterator[torch.Tensor]] | None = None

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "StoredTensor":
        """A tensor that is in memory (or memory-mapped) already."""
        values = tensor.detach()
        return cls(values.dtype, tuple(values.shape), lambda: values)

    @property
    def is_plain(self) -> bool:
        """Whether the values are stored as they are read."""
        return True

    @property
    def elements(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape, dtype=object))

    @property
    def nbytes(self) -> int:
        """Bytes of the values as stored."""
        return self.elements * self.dtype.itemsize

    def pieces(self) -> Iterator[torch.Tensor]:
        """Values flat in C order, some at a time."""
        if self.stream is not None:
            yield from self.stream()
            return
        flat = self.load().detach().reshape(-1)
        for start in range(0, len(flat), _PIECE):
            yield flat[start : start + _PIECE]

    def converted(self, dtype: torch.dtype) -> "StoredTensor":
        """The tensor in another data type."""
        if dtype == self.dtype:
            return self
        stream = lambda: (piece.to(dtype) for piece in self.pieces())  # noqa: E731 - a field, not a function
        return StoredTensor(dtype, self.shape, lambda: self.load().to(dtype), stream)


@dataclass(frozen=True)
class TensorFile:
    """Content of a safetensors file.

    Args:
        tensors: By name, in file order.
        shared: Names of tied tensors, each mapped to the name its values are stored under.
        metadata: What else the header says.
        scratch: A folder for what is made of the tensors.
    """

    tensors: dict[str, StoredTensor]
    shared: dict[str, str]
    metadata: Mapping[str, str] = field(default_factory=dict)
    scratch: Path | None = None


def read_safetensors(path: Path) -> TensorFile:
    """Checks the header of a file that may be anyone's and opens it; values are mapped into memory, not read.

    Raises:
        EngineError: As ``safetensors_header.read_header``.
    """
    header = read_header(path)
    with path.open("rb") as file:
        # Private to this process: a technique that writes into a tensor changes its own copy, never the file.
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    tensors = {entry.name: _mapped(content, entry) for entry in header.tensors}
    shared = {alias: name for alias, name in header.metadata.items() if alias not in tensors and name in tensors}
    others = {key: text for key, text in header.metadata.items() if key not in shared}
    return TensorFile(tensors, shared, others)


def _mapped(content: mmap.mmap, entry: TensorEntry) -> StoredTensor:
    dtype = _DTYPES[entry.dtype]

    def load() -> torch.Tensor:
        if entry.start == entry.end:
            return torch.empty(entry.shape, dtype=dtype)
        count = (entry.end - entry.start) // dtype.itemsize
        return torch.frombuffer(content, dtype=dtype, count=count, offset=entry.start).reshape(entry.shape)

    return StoredTensor(dtype, entry.shape, load)


def write_safetensors(
    path: Path,
    tensors: Mapping[str, StoredTensor],
    shared: Mapping[str, str],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes tensors piece by piece, and waits for the disk; same tensors in the same order, same bytes.

    Values lie in falling order of item size, so that each is aligned when the file is memory-mapped. Tied tensors are
    stored once and named in the metadata, as ``safetensors.torch.save_model`` does.
    """
    ordered = sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize)
    header: dict[str, object] = {"__metadata__": {"format": "pt", **dict(sorted(shared.items())), **(metadata or {})}}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little"))
        file.write(encoded)
        for _, tensor in ordered:
            for piece in tensor.pieces():
                file.write(piece.to(tensor.dtype).contiguous().view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())


def to_numpy(tensor: torch.Tensor) -> Array:
    """The values as numpy sees them; bfloat16 and float8 as ``ml_dtypes`` has them."""
    values = tensor.detach().cpu().contiguous()
    extension = _NUMPY_EXTENSIONS.get(values.dtype)
    if extension is None:
        return np.asarray(values.numpy())
    flat = values.reshape(-1).view(torch.uint8).numpy().view(extension)
    return np.asarray(flat.reshape(tuple(values.shape)))


def from_numpy(array: npt.NDArray[Any]) -> torch.Tensor:
    """The inverse of ``to_numpy``, over the same memory."""
    extension = _TORCH_EXTENSIONS.get(array.dtype)
    if extension is None:
        return torch.from_numpy(array)
    return torch.from_numpy(array.reshape(-1).view(np.uint8)).view(extension).reshape(array.shape)


def arrays(tensors: Mapping[str, StoredTensor]) -> Iterator[tuple[str, Array]]:
    """Values by name, one tensor in memory at a time."""
    for name, tensor in tensors.items():
        yield name, to_numpy(tensor.load())
