"""Parameters of a torch model grouped into the layers that own them."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch

from workers.compression.families.model import StoredLayer
from workers.compression.families.torch.storage import Int8Weight, Storage


def layer_name(parameter: str) -> str:
    """The layer that a parameter belongs to: its name without the last part."""
    return parameter.rpartition(".")[0] or parameter


def stored_layers(
    parameters: Iterable[tuple[str, torch.Tensor]],
    storage: Mapping[str, Storage],
    op_of: Callable[[str], str],
) -> Iterator[StoredLayer]:
    """Layers in the order of their first parameter; ``weights`` are those of the largest one.

    Args:
        parameters: Names and values as computed with.
        storage: How parameters are stored that are not stored as they are computed with.
        op_of: Kind of a layer by its name.
    """
    groups: dict[str, list[tuple[str, torch.Tensor]]] = {}
    for name, tensor in parameters:
        groups.setdefault(layer_name(name), []).append((name, tensor))
    for name, members in groups.items():
        yield _layer(name, members, storage, op_of(name))


def _layer(name: str, members: list[tuple[str, torch.Tensor]], storage: Mapping[str, Storage], op: str) -> StoredLayer:
    main_name, main = max(members, key=lambda member: member[1].numel())
    return StoredLayer(
        name=name,
        op=op,
        parameters=sum(tensor.numel() for _, tensor in members),
        nonzero=sum(int(torch.count_nonzero(tensor)) for _, tensor in members),
        bytes=sum(_bytes(tensor, storage.get(member)) for member, tensor in members),
        bits=_bits(main, storage.get(main_name)),
        weights=np.asarray(main.detach().float().numpy()) if main.is_floating_point() else None,
    )


def _bytes(tensor: torch.Tensor, storage: Storage | None) -> int:
    return storage.nbytes if isinstance(storage, Int8Weight) else tensor.numel() * (storage or tensor.dtype).itemsize


def _bits(tensor: torch.Tensor, storage: Storage | None) -> float:
    return 8.0 if isinstance(storage, Int8Weight) else 8.0 * (storage or tensor.dtype).itemsize
