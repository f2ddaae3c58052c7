"""The neurons of a transformers module, and the module with fewer of them in every layer alike.

``config.json`` has one width for the hidden layers of all blocks, so as many neurons have to go from each. Heads stay:
their size is that of the hidden state divided by their number, which would change with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch

from workers.compression.families.model import Feeds
from workers.compression.families.tensors.stored import StoredTensor
from workers.compression.families.torch import running
from workers.compression.families.torch.architectures import Architecture
from workers.compression.families.torch.structure.reading import cut_values, read_structure
from workers.compression.families.torch.transformer_loading import load_module
from workers.compression.families.torch.transformer_model import TransformerModel
from workers.compression.families.torch.transformer_training import PositionalTransformer
from workers.compression.families.torch.transformers_config import build_config, build_module
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.structure.relations import FIXED
from workers.compression.structure.units import Group, Removed, Structure

_WIDTHS: Final = ("intermediate_size", "hidden_dim")
"""What configurations call the width of the layers in a block that come after attention."""
_PREFIX: Final = "network."
_WIDER: Final = 8
_EXPORT_ERRORS: Final = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
_HINT: Final = "Export the model with torch.export or to ONNX, where any of its channels, neurons and heads may go."


@dataclass(frozen=True)
class Neurons:
    """What may go from a module.

    Args:
        key: Of the width in ``config.json``.
        groups: The neurons of each layer, as many of each.
    """

    structure: Structure
    groups: Sequence[Group]
    key: str

    def shrink(self, model: TransformerModel, removed: Removed) -> None:
        """Takes as many neurons out of each layer, in place; the module is built anew from its configuration."""
        width = int(np.count_nonzero(~removed[self.groups[0].units]))
        entries = {**model.entries, self.key: width}
        tensors = {}
        for name, tensor in model.parameters():
            kept = [self.structure.kept(axis, removed) for axis in self.structure.stored.get(name, ())]
            tensors[name] = StoredTensor.of(cut_values(tensor.load(), kept))
        config = build_config(model.architecture, entries)
        model.module = load_module(model.architecture, config, tensors, {}).module
        model.entries = entries


def read_neurons(model: TransformerModel, feeds: Feeds) -> Neurons:
    """Follows every axis through the module as torch exports it, and keeps those that the width decides on.

    Args:
        feeds: One row.

    Raises:
        UnsupportedTechnique: Weights are stored as integers, the module cannot be exported, its configuration has no
            such width, or not all of these neurons can be told from the rest.
    """
    quantized = next(iter(model.quantized), None)
    if quantized is not None:
        raise UnsupportedTechnique(
            f"The weight {quantized} is stored in fewer bits; neurons can only be taken out of floats.",
            hint="Prune the original model, then quantize it.",
        )
    key, width = _width(model.module.config, model.architecture)
    structure = _exported(model, feeds)
    decided = _decided(model.architecture, model.entries, key, width)
    axes = {(name, place): axis for name, axes in structure.stored.items() for place, axis in enumerate(axes)}
    units = {unit for spot in decided if spot in axes for unit in structure.units[axes[spot]].tolist()}
    mixed = any(spot not in decided and not units.isdisjoint(structure.units[axis]) for spot, axis in axes.items())
    groups = [group for group in structure.groups() if units.issuperset(group.units.tolist())]
    if not groups or FIXED in units or mixed or any(len(group.units) != width for group in groups):
        raise UnsupportedTechnique(
            f"The neurons that {key} counts cannot be taken out of {model.architecture.class_name}.", hint=_HINT
        )
    return Neurons(structure, groups, key)


def _width(config: Any, architecture: Architecture) -> tuple[str, int]:
    for key in _WIDTHS:
        width = getattr(config, key, None)
        if isinstance(width, int):
            return key, width
    raise UnsupportedTechnique(
        f"Neither {' nor '.join(_WIDTHS)} stands in the config.json of {architecture.model_type} models, so that the "
        "file could say how many neurons are left.",
        hint=_HINT,
    )


def _exported(model: TransformerModel, feeds: Feeds) -> Structure:
    names = [port.name for port in model.inputs]
    inputs = tuple(running.tensors_of(feeds, model.inputs).values())
    network = PositionalTransformer(model.module, names, model.architecture.output).eval()
    try:
        program = torch.export.export(network, inputs)
    except _EXPORT_ERRORS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UnsupportedTechnique(f"torch cannot export the model: {reason}", hint=_HINT) from error
    found = read_structure(program, inputs).structure
    stored = {name.removeprefix(_PREFIX): axes for name, axes in found.stored.items()}
    summed = frozenset((name.removeprefix(_PREFIX), place) for name, place in found.summed)
    return replace(found, stored=stored, summed=summed)


def _decided(architecture: Architecture, entries: dict[str, Any], key: str, width: int) -> set[tuple[str, int]]:
    """Weights and axes whose length changes with the width."""
    shapes = []
    for size in (width, width + _WIDER):
        with torch.device("meta"):
            module = build_module(architecture, build_config(architecture, {**entries, key: size}))
        shapes.append({name: tuple(tensor.shape) for name, tensor in module.state_dict().items()})
    return {
        (name, place)
        for name, shape in shapes[0].items()
        for place, (one, other) in enumerate(zip(shape, shapes[1][name], strict=True))
        if one != other
    }
