"""Which weights of a transformers module compressed-tensors has a place for, and what they take in the file."""

from collections.abc import Mapping

import torch

from workers.compression.families.torch.compressed_tensors_layout import Layout, LayoutWeight, entries, layout_of
from workers.compression.families.torch.compressed_tensors_scheme import PACKED
from workers.compression.families.torch.layers import StoredAs
from workers.compression.families.torch.storage import IntegerWeight, Place, ScaledFloats, Storage
from workers.compression.families.weights import FloatForm, Role, WeightForm
from workers.compression.quantization.codebook import CodebookWeight

_ROLES: dict[type, Role] = {
    torch.nn.Linear: "linear",
    torch.nn.Embedding: "embedding",
    torch.nn.Conv1d: "convolution",
    torch.nn.Conv2d: "convolution",
}
_LAYOUT = "compressed-tensors, the layout that transformers opens,"


def owner_of(module: torch.nn.Module, name: str) -> tuple[torch.nn.Module, str]:
    """The module that has a parameter, and what it is called there."""
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf


def role_of(module: torch.nn.Module, name: str) -> Role:
    """What reads a parameter."""
    return _ROLES.get(type(owner_of(module, name)[0]), "other")


def has_place(module: torch.nn.Module, name: str) -> bool:
    """Whether compressed-tensors restores a parameter."""
    owner, leaf = owner_of(module, name)
    return type(owner) in (torch.nn.Linear, torch.nn.Embedding) and leaf == "weight"


def why_no_form(form: WeightForm) -> str | None:
    """Why the layout has no such form."""
    if isinstance(form, CodebookWeight):
        return f"{_LAYOUT} has no codebooks"
    if isinstance(form, FloatForm):
        return None if form.dtype == "float8_e4m3fn" else f"{_LAYOUT} has no {form.dtype}"
    return None if form.parameters.offset is None else f"{_LAYOUT} has no offsets that are floats"


def scaled(form: Storage, values: torch.Tensor) -> LayoutWeight:
    """What the layout stores; it has a scale beside 8-bit floats also where that is 1."""
    if isinstance(form, IntegerWeight | ScaledFloats):
        return form
    if not isinstance(form, torch.dtype):
        raise TypeError(f"compressed-tensors has no {type(form).__name__}")
    place = Place.plain(values.shape[0], values.shape[1], values.dtype)
    return ScaledFloats(values.to(form), torch.ones(1, 1, dtype=values.dtype), place)


def quantized_in(storage: Mapping[str, Storage]) -> dict[str, LayoutWeight]:
    """Weights that have to be restored, by parameter name."""
    return {name: form for name, form in storage.items() if isinstance(form, IntegerWeight | ScaledFloats)}


def layout_in(module: torch.nn.Module, storage: Mapping[str, Storage]) -> Layout:
    """How the quantized weights are written."""
    quantized = quantized_in(storage)
    return layout_of(quantized, frozenset(name for name in quantized if role_of(module, name) == "embedding"))


def stored_as(module: torch.nn.Module, storage: Mapping[str, Storage]) -> dict[str, StoredAs]:
    """What parameters take that are not stored as they are computed with."""
    layout, found = layout_in(module, storage), {}
    for name, form in storage.items():
        if isinstance(form, torch.dtype):
            owner, leaf = owner_of(module, name)
            found[name] = StoredAs(getattr(owner, leaf).numel() * form.itemsize, 8.0 * form.itemsize)
    for name, weight in quantized_in(storage).items():
        scheme = layout.schemes[name]
        size = sum(tensor.nbytes for tensor in entries(name, weight, scheme).values())
        found[name] = StoredAs(size, float(scheme.bits if scheme.format == PACKED else 8))
    return found
