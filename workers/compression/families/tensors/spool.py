"""Arrays that were made and wait to be saved: in a file without a name, so that they take no memory."""

import mmap
import tempfile
import weakref
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from workers.compression.families.tensors.stored import StoredTensor, from_numpy

_SMALL: Final = 1 << 16


class Spool:
    """Takes arrays, gives them back as stored tensors.

    Args:
        folder: Where the file lies until nobody refers to it any more; the system's choice where not given.
    """

    def __init__(self, folder: Path | None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as its tensors
        weakref.finalize(self, self._file.close)

    def keep(self, array: npt.NDArray[Any]) -> StoredTensor:
        """Writes an array; small ones stay in memory."""
        contiguous = np.ascontiguousarray(array)
        tensor = from_numpy(contiguous)
        if contiguous.nbytes < _SMALL:
            return StoredTensor.of(tensor)
        end = self._file.seek(0, 2)
        start = self._file.seek(end + -end % mmap.ALLOCATIONGRANULARITY)
        self._file.write(contiguous.reshape(-1).view(np.uint8).data)
        self._file.flush()
        shape, dtype = tuple(tensor.shape), tensor.dtype
        return StoredTensor(dtype, shape, partial(self._load, start, contiguous.nbytes, dtype, shape))

    def _load(self, start: int, size: int, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
        content = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_COPY, offset=start)
        return torch.frombuffer(content, dtype=dtype).reshape(shape)
