"""What an opened model can do, whatever its kind."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from workers.compression.specs.formats import Family, ModelFormat
from workers.compression.specs.messages import Port

Array = npt.NDArray[np.generic]
Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class WeightPieces:
    """Values of a layer that may be too large to be held.

    Args:
        shape: Of all of them.
        read: Gives them as float32, flat in C order, some at a time; each piece is good until the next is asked for.
    """

    shape: tuple[int, ...]
    read: Callable[[], Iterator[npt.NDArray[np.float32]]]


@dataclass(frozen=True)
class StoredLayer:
    """A layer (or tensor, where there is no graph) as it is stored now.

    ``weights`` gives its values as float32 after dequantization, for SQNR against another version of the layer.
    ``nonzero`` counts parameters that are not zero; None where they are all in ``weights``, still to be counted.
    """

    name: str
    op: str
    parameters: int
    nonzero: int | None
    bytes: int
    bits: float
    weights: npt.NDArray[np.float32] | WeightPieces | None = None


class Model(ABC):
    """An opened model: runnable where its family runs, countable, savable.

    Implementations load weights once and keep no copy besides; ``run`` may build its session lazily.
    """

    format: ClassVar[ModelFormat]
    family: ClassVar[Family]
    extension: ClassVar[str]
    """File ending of the saved form, such as ``.onnx``."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[Port, ...]:
        """Inputs in order; empty for bare tensors."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[Port, ...]:
        """Outputs in order; empty for bare tensors."""

    @abstractmethod
    def run(self, feeds: Feeds) -> list[Array]:
        """Outputs in order for one batch; raises ``UnsupportedOperator`` where the runtime cannot run the model."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Writes the model's own format to ``path``; same model, same bytes."""

    @abstractmethod
    def stored_layers(self) -> Iterator[StoredLayer]:
        """Layers in graph order, one at a time, so that large models need one layer's memory."""

    @abstractmethod
    def tensors(self) -> Iterator[tuple[str, Array]]:
        """Stored tensors by name, one at a time."""

    @abstractmethod
    def size_bytes(self) -> int:
        """Bytes of the stored model on disk, tokenizers and other companions not counted."""

    @abstractmethod
    def load_snippet(self, name: str) -> str:
        """Paste-ready code that opens the saved file ``name`` in the user's own runtime."""

    def macs(self, feeds: Feeds) -> int | None:
        """Multiply-accumulates for one batch, where they can be counted."""
        return None

    def tokenizer_file(self) -> Path | None:
        """The tokenizer.json that came with the model."""
        return None

    def threads(self, count: int) -> None:
        """Sets how many threads ``run`` uses; before the first run."""
        return
