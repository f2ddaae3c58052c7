"""Parameters of a torch model grouped into the layers that own them."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch

from workers.compression.families.model import StoredLayer
from workers.compression.families.torch.int8_weight import Int8Weight


def layer_name(parameter: str) -> str:
    """The layer that a parameter belongs to: its name without the last part."""
    return parameter.rpartition(".")[0] or parameter


def stored_layers(
    parameters: Iterable[tuple[str, torch.Tensor]],
    quantized: Mapping[str, Int8Weight],
    op_of: Callable[[str], str],
) -> Iterator[StoredLayer]:
    """Layers in the order of their first parameter; ``weights`` are those of the largest one.

    Args:
        parameters: Names and (expanded) values.
        quantized: Weights that are stored as integers, by parameter name.
        op_of: Kind of a layer by its name.
    """
    groups: dict[str, list[tuple[str, torch.Tensor]]] = {}
    for name, tensor in parameters:
        groups.setdefault(layer_name(name), []).append((name, tensor))
    for name, members in groups.items():
        yield _layer(name, members, quantized, op_of(name))


def _layer(
    name: str, members: list[tuple[str, torch.Tensor]], quantized: Mapping[str, Int8Weight], op: str
) -> StoredLayer:
    main_name, main = max(members, key=lambda member: member[1].numel())
    packed = quantized.get(main_name)
    stored = [quantized.get(member, tensor) for member, tensor in members]
    return StoredLayer(
        name=name,
        op=op,
        parameters=sum(tensor.numel() for _, tensor in members),
        nonzero=sum(_nonzero(value) for value in stored),
        bytes=sum(value.nbytes for value in stored),
        bits=8.0 * (main.dtype.itemsize if packed is None else 1),
        weights=np.asarray(main.detach().float().numpy()) if main.is_floating_point() else None,
    )


def _nonzero(value: torch.Tensor | Int8Weight) -> int:
    return value.nonzero if isinstance(value, Int8Weight) else int(torch.count_nonzero(value))
