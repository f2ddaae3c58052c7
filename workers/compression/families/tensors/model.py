"""A set of named tensors without a graph: countable, compressible and savable, but not runnable."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import NoReturn, Self

import numpy as np
import torch

from workers.compression.families.model import Array, Feeds, Model, StoredLayer, WeightPieces
from workers.compression.families.statistics import describe_tensor
from workers.compression.families.tensors.layout import PIECE, parts_of
from workers.compression.families.tensors.quantized import BOOK, QuantizedTensor
from workers.compression.families.tensors.spool import Spool
from workers.compression.families.tensors.stored import StoredTensor, TensorFile, arrays, to_numpy
from workers.compression.families.weights import CompressibleModel, Floats, Role, Weight, WeightForm
from workers.compression.similarity.identity import digest
from workers.compression.specs.errors import UnsupportedOperator
from workers.compression.specs.formats import Family
from workers.compression.specs.messages import ModelInspection, Port
from workers.compression.specs.metrics import TensorStatistics

_TABLE_NAMES = ("embed", "wte", "wpe")


class TensorsModel(CompressibleModel):
    """Tensors by name with the names that share one tensor.

    Args:
        content: Tensors in their natural order and the sharing map.
        stored_bytes: Size of the file they came from.
    """

    family = Family.TENSORS

    def __init__(self, content: TensorFile, stored_bytes: int) -> None:
        self._content = content
        self._stored_bytes = stored_bytes

    @property
    def inputs(self) -> tuple[Port, ...]:
        """Empty: there is no graph."""
        return ()

    @property
    def outputs(self) -> tuple[Port, ...]:
        """Empty: there is no graph."""
        return ()

    @property
    def stored(self) -> Mapping[str, StoredTensor]:
        """Tensors by name, values read when asked for; tied names appear once."""
        return self._content.tensors

    @property
    def content(self) -> TensorFile:
        """All that is stored."""
        return self._content

    @property
    def shared(self) -> Mapping[str, str]:
        """Names of tied tensors, each mapped to the name its values are stored under."""
        return self._content.shared

    def with_tensors(self, tensors: Mapping[str, StoredTensor]) -> Self:
        """The same model with other values under the same names."""
        return type(self)(replace(self._content, tensors=dict(tensors)), _nbytes(tensors))

    def weights(self) -> tuple[Weight, ...]:
        """Float tensors of at least two axes; without a graph, names and shapes are all there is to go by."""
        return tuple(
            _weight(name, tensor)
            for name, tensor in self.stored.items()
            if tensor.is_plain and tensor.dtype.is_floating_point and len(tensor.shape) > 1 and tensor.elements
        )

    def matrix(self, weight: Weight) -> Floats:
        """The values of one weight."""
        return np.asarray(weight.to_matrix(self.stored[weight.name].load().float().numpy()), np.float32)

    def replace(self, matrices: Iterable[tuple[Weight, Floats]]) -> None:
        """Gives tensors other values in their own type."""
        self.change((weight.name, self._in_own_type(weight, matrix)) for weight, matrix in matrices)

    def _in_own_type(self, weight: Weight, matrix: Floats) -> Array:
        values = torch.from_numpy(np.asarray(weight.from_matrix(matrix), np.float32))
        return to_numpy(values.to(self.stored[weight.name].dtype))

    def change(self, values: Iterable[tuple[str, Array]]) -> None:
        """Gives tensors other values of the same type and shape; takes them one at a time."""
        spool, tensors = Spool(self._content.scratch), dict(self.stored)
        for name, array in values:
            tensors[name] = spool.keep(array)
        self._take(tensors)

    def store(self, forms: Iterable[tuple[Weight, WeightForm]]) -> None:
        """Stores tensors in other forms; their parts lie in a file until the model is saved."""
        spool, tensors = Spool(self._content.scratch), dict(self.stored)
        books: dict[bytes, StoredTensor] = {}
        for weight, form in forms:
            tensors[weight.name] = _stored(weight, form, spool, books)
        self._take(tensors)

    def why_not(self, weight: Weight, form: WeightForm) -> str | None:
        """Every form has a layout."""
        return None

    def with_shared(self, shared: Mapping[str, str]) -> Self:
        """The same model with ``shared`` names stored under those they are mapped to, whose values are the same."""
        kept = {name: tensor for name, tensor in self.stored.items() if name not in shared}
        aliases = {name: shared.get(original, original) for name, original in self.shared.items()} | dict(shared)
        return type(self)(replace(self._content, tensors=kept, shared=aliases), _nbytes(kept))

    def run(self, feeds: Feeds) -> NoReturn:
        """Raises ``UnsupportedOperator``: tensors alone do not say how to compute with them."""
        raise UnsupportedOperator("The model is a set of tensors without a graph, so it cannot be run.")

    def threads(self, count: int) -> None:
        """One, however many there may be: pieces are so short that threads would mostly wait for each other."""
        torch.set_num_threads(1)

    def stored_layers(self) -> Iterator[StoredLayer]:
        """One entry per tensor."""
        own = _own_bytes(self.stored)
        for name, tensor in self.stored.items():
            yield _layer(name, tensor, own[name])

    def tensors(self) -> Iterator[tuple[str, Array]]:
        """Values by name, one tensor in memory at a time."""
        return arrays(self.stored)

    def size_bytes(self) -> int:
        """Size of the file the model was opened from; of the values alone once they were changed."""
        return self._stored_bytes

    def inspection(self, clean: str | None, details: Mapping[str, object], warnings: list[str]) -> ModelInspection:
        """What an upload of these tensors turned out to be."""
        return ModelInspection(
            format=self.format,
            family=self.family,
            clean=clean,
            parameters=sum(tensor.elements for tensor in self.stored.values()),
            tensors=tuple(_described(name, tensor) for name, tensor in self.stored.items()),
            details={"shared": dict(self.shared), **details},
            warnings=tuple(warnings),
        )

    def _take(self, tensors: dict[str, StoredTensor]) -> None:
        self._content, self._stored_bytes = replace(self._content, tensors=tensors), _nbytes(tensors)


def _weight(name: str, tensor: StoredTensor) -> Weight:
    rank = len(tensor.shape)
    role: Role = "convolution" if rank > 2 else "linear"
    if rank == 2 and any(part in name.lower() for part in _TABLE_NAMES):
        role = "embedding"
    return Weight(name, name, tensor.shape, str(tensor.dtype).removeprefix("torch."), role, tuple(range(rank)))


def _stored(weight: Weight, form: WeightForm, spool: Spool, books: dict[bytes, StoredTensor]) -> StoredTensor:
    """A weight in another form; equal codebooks of several weights are one part."""
    layout, arrays = parts_of(form, weight.shape)
    parts = {suffix: spool.keep(array) for suffix, array in arrays.items() if suffix != BOOK}
    if BOOK in arrays:
        book = arrays[BOOK]
        parts[BOOK] = books.setdefault(digest(book) + str((book.dtype, book.shape)).encode(), spool.keep(book))
    return parts[""] if parts.keys() == {""} else QuantizedTensor.reading(weight.name, layout, parts)


def _nbytes(tensors: Mapping[str, StoredTensor]) -> int:
    return sum(_own_bytes(tensors).values())


def _own_bytes(tensors: Mapping[str, StoredTensor]) -> dict[str, int]:
    """Bytes of each tensor; a codebook that several share counts for the first of them."""
    seen: set[int] = set()
    found = {}
    for name, tensor in tensors.items():
        book = tensor.parts.get(BOOK) if isinstance(tensor, QuantizedTensor) else None
        known = book is not None and id(book) in seen
        found[name] = tensor.nbytes - (book.nbytes if book is not None and known else 0)
        seen.add(id(book))
    return found


def _layer(name: str, tensor: StoredTensor, size: int) -> StoredLayer:
    floats = tensor.dtype.is_floating_point
    return StoredLayer(
        name=name,
        op="tensor",
        parameters=tensor.elements,
        nonzero=None if floats else sum(int(torch.count_nonzero(piece)) for piece in tensor.pieces()),
        bytes=size,
        bits=8.0 * size / max(tensor.elements, 1),
        weights=WeightPieces(tensor.shape, partial(_float_pieces, tensor)) if floats else None,
    )


def _float_pieces(tensor: StoredTensor) -> Iterator[Floats]:
    buffer = torch.empty(PIECE)
    for piece in tensor.pieces():
        if piece.dtype == torch.float32 or len(piece) > PIECE:
            yield np.asarray(piece.detach().float().numpy())
        else:
            yield np.asarray(buffer[: len(piece)].copy_(piece).numpy())


def _described(name: str, tensor: StoredTensor) -> TensorStatistics:
    found = describe_tensor(name, to_numpy(tensor.load()))
    if not isinstance(tensor, QuantizedTensor):
        return found
    kind, bits = tensor.layout.kind, tensor.layout.bits
    dtype = str(tensor.parts[""].dtype).removeprefix("torch.") if kind == "float" else f"{kind}{bits}"
    return found.model_copy(update={"dtype": dtype, "bytes": tensor.nbytes})


def as_tensors(model: Model) -> TensorsModel:
    """``model`` as what the handlers of bare tensors work on."""
    if not isinstance(model, TensorsModel):
        raise TypeError(f"{type(model).__name__} is not a set of tensors")
    return model
