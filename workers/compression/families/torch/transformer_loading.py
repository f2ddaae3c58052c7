"""A transformers module filled from stored tensors, built only once it is known that they fit it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from transformers.initialization import no_init_weights

from workers.compression.families.tensors.stored import StoredTensor
from workers.compression.families.torch.architectures import Architecture
from workers.compression.families.torch.compressed_tensors_layout import LayoutWeight
from workers.compression.families.torch.storage import Storage
from workers.compression.families.torch.transformers_config import build_module
from workers.compression.specs.errors import InvalidModel

_REASON: Final = "hf_weights"
_OLD_NAMES: Final = {
    "LayerNorm.gamma": "LayerNorm.weight",
    "LayerNorm.beta": "LayerNorm.bias",
    "embed_out.weight": "lm_head.weight",
}


@dataclass(frozen=True)
class LoadedModule:
    """A module in evaluation mode.

    Args:
        storage: How parameters are stored that are not stored as they are computed with.
        notes: Sentences about tensors that were left out.
    """

    module: torch.nn.Module
    storage: dict[str, Storage]
    notes: tuple[str, ...]


def load_module(
    architecture: Architecture,
    config: Any,
    tensors: Mapping[str, StoredTensor],
    quantized: Mapping[str, LayoutWeight],
) -> LoadedModule:
    """Builds and fills the module; weights stay mapped from the file, quantized ones are expanded.

    Raises:
        InvalidModel: A tensor is missing or has another shape than the configuration says.
    """
    with torch.device("meta"):
        skeleton = build_module(architecture, config)
    rename = _renaming(skeleton, [*tensors, *quantized])
    renamed = {rename(name): tensor for name, tensor in tensors.items()}
    restored = {rename(name): _quantized(weight, config.dtype) for name, weight in quantized.items()}
    shapes = {name: tensor.shape for name, tensor in renamed.items()}
    shapes |= {name: weight.matrix_shape for name, weight in restored.items()}
    options = _check_complete(skeleton, shapes)
    # Only now, when every parameter is known to lie in the file, is memory asked for.
    with no_init_weights():
        module = build_module(architecture, config, **options)
    expected = module.state_dict().keys()
    state = {name: _computed(tensor, config.dtype) for name, tensor in renamed.items() if name in expected}
    state |= {name: weight.expanded() for name, weight in restored.items() if name in expected}
    # Files name only one of several tied tensors; strict, so that none can stay as memory happened to be.
    for group in _tied_groups(skeleton):
        given = next((state[name] for name in group if name in state), None)
        state.update({name: given for name in group if given is not None and name in expected})
    module.load_state_dict(state, strict=True, assign=True)
    module.tie_weights()
    module.eval().requires_grad_(requires_grad=False)
    unused = sorted(shapes.keys() - expected)
    storage: dict[str, Storage] = {
        name: tensor.dtype for name, tensor in renamed.items() if name in expected and tensor.dtype != state[name].dtype
    }
    return LoadedModule(
        module=module,
        storage=storage | {name: weight for name, weight in restored.items() if name in expected},
        notes=(f"Tensors that the model does not use were left out: {', '.join(unused[:20])}.",) if unused else (),
    )


def _computed(tensor: StoredTensor, dtype: torch.dtype | None) -> torch.Tensor:
    """The values in the type that the configuration names, as transformers loads them."""
    values = tensor.load()
    return values.to(dtype) if dtype is not None and values.is_floating_point() else values


def _quantized(weight: LayoutWeight, dtype: torch.dtype | None) -> LayoutWeight:
    return weight if dtype is None else weight.computed_in(dtype)


def _renaming(skeleton: Any, names: list[str]) -> Callable[[str], str]:
    """How names in the file become the class's: old spellings, and the prefix of a class that had a head."""
    prefix = f"{skeleton.base_model_prefix}."
    expected = skeleton.state_dict().keys()
    strip = not any(name in expected for name in names) and any(name.removeprefix(prefix) in expected for name in names)

    def rename(name: str) -> str:
        for old, new in _OLD_NAMES.items():
            if name.endswith(old):
                name = name.removesuffix(old) + new
        return name.removeprefix(prefix) if strip else name

    return rename


def _check_complete(skeleton: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Options of the class with which the tensors fill it completely."""
    for name, tensor in skeleton.state_dict().items():
        if name in shapes and shapes[name] != tuple(tensor.shape):
            raise InvalidModel(
                f"Tensor {name!r} has shape {list(shapes[name])}; the configuration asks for {list(tensor.shape)}.",
                reason=_REASON,
            )
    missing = _missing(skeleton, shapes)
    if missing and all(name.startswith("pooler.") for name in missing):
        return {"add_pooling_layer": False}
    if missing:
        raise InvalidModel(
            f"The weights lack {len(missing)} tensors that the configuration asks for, {missing[0]!r} among them.",
            reason=_REASON,
        )
    return {}


def _missing(skeleton: Any, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Names without a tensor, unless they are tied to one that has."""
    return [group[0] for group in _tied_groups(skeleton) if not any(name in shapes for name in group)]


def _tied_groups(skeleton: Any) -> list[list[str]]:
    """Names of the state, those of one tensor together."""
    by_identity: dict[int, list[str]] = {}
    for name, tensor in skeleton.state_dict(keep_vars=True).items():
        by_identity.setdefault(id(tensor), []).append(name)
    return list(by_identity.values())
