"""Parameters of a torch model grouped into the layers that own them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from workers.compression.families.model import StoredLayer
from workers.compression.families.tensors.stored import StoredTensor


def layer_name(parameter: str) -> str:
    """The layer that a parameter belongs to: its name without the last part."""
    return parameter.rpartition(".")[0] or parameter


@dataclass(frozen=True)
class StoredAs:
    """What a parameter takes in the file.

    Args:
        bytes: With scales, zero points and codebooks.
        bits: Of one number or code.
    """

    bytes: int
    bits: float


def stored_layers(
    parameters: Iterable[tuple[str, StoredTensor]],
    stored: Mapping[str, StoredAs],
    op_of: Callable[[str], str],
) -> Iterator[StoredLayer]:
    """Layers in the order of their first parameter; ``weights`` are those of the largest one.

    Args:
        parameters: Names and values as computed with, one layer's in memory at a time.
        stored: What parameters take that are not stored as they are computed with.
        op_of: Kind of a layer by its name.
    """
    groups: dict[str, list[tuple[str, StoredTensor]]] = {}
    for name, tensor in parameters:
        groups.setdefault(layer_name(name), []).append((name, tensor))
    for name, members in groups.items():
        yield _layer(name, members, stored, op_of(name))


def _layer(name: str, members: list[tuple[str, StoredTensor]], stored: Mapping[str, StoredAs], op: str) -> StoredLayer:
    main_name, main = max(members, key=lambda member: member[1].elements)
    values = main.load().detach()
    nonzero = sum(_nonzero(tensor.load()) for other, tensor in members if other != main_name)
    return StoredLayer(
        name=name,
        op=op,
        parameters=sum(tensor.elements for _, tensor in members),
        nonzero=nonzero + _nonzero(values),
        bytes=sum(stored.get(member, _as_is(tensor)).bytes for member, tensor in members),
        bits=stored.get(main_name, _as_is(main)).bits,
        weights=np.asarray(values.float().numpy()) if values.is_floating_point() else None,
    )


def _nonzero(tensor: torch.Tensor) -> int:
    # torch does not count among 8-bit floats.
    countable = tensor.float() if tensor.is_floating_point() and tensor.dtype.itemsize == 1 else tensor
    return int(torch.count_nonzero(countable))


def _as_is(tensor: StoredTensor) -> StoredAs:
    return StoredAs(tensor.nbytes, 8.0 * tensor.dtype.itemsize)
