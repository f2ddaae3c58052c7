"""The flat dictionary of tensors inside what people save."""

from collections.abc import Mapping
from typing import Any, Final

import torch

from workers.compression.families.tensors.stored import DTYPE_NAMES
from workers.compression.specs.errors import InvalidModel, TooLarge

_REASON: Final = "checkpoint_invalid"
_WRAPPERS: Final = ("state_dict", "model_state_dict", "model")
_PREFIX: Final = "module."
_MAX_TENSORS: Final = 20_000
_MAX_RANK: Final = 8
_MAX_NODES: Final = 5_000_000
_MAX_GROWTH: Final = 4
_ALWAYS_FINE_BYTES: Final = 64 << 20


def unwrap(loaded: Any, *, file_bytes: int) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Finds the tensors: at the top, or one level below under a usual name, with or without ``module.`` prefixes.

    Returns:
        The tensors in their order, and sentences about what was left out.

    Raises:
        InvalidModel: There is no dictionary of tensors, or a tensor is of a kind that is not supported.
        TooLarge: A tensor is larger than its storage, or all together are far larger than the file.
    """
    check_expansion(loaded)
    if not isinstance(loaded, Mapping):
        raise _no_state_dict(f"a {type(loaded).__name__}")
    wrapper = next((key for key in _WRAPPERS if _holds_tensors(loaded.get(key))), None)
    notes = []
    if wrapper is not None:
        left_out = [str(key)[:50] for key in loaded if key != wrapper]
        notes += [f"Only {wrapper!r} was kept; left out: {', '.join(left_out[:20])}."] if left_out else []
        loaded = loaded[wrapper]
    tensors = {key: value for key, value in loaded.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
    left_out = [str(key)[:50] for key in loaded if key not in tensors]
    if not tensors:
        raise _no_state_dict(f"a dictionary with {', '.join(left_out[:10]) or 'nothing'}")
    if left_out:
        notes.append(f"Entries that are no tensors were left out: {', '.join(left_out[:20])}.")
    if all(name.startswith(_PREFIX) for name in tensors):
        notes.append(f"The prefix {_PREFIX!r} of data-parallel training was removed from the tensors' names.")
        tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    _check_tensors(tensors, file_bytes)
    return tensors, notes


def check_expansion(loaded: Any) -> None:
    """Refuses objects that are small only because they refer to the same parts over and over, or to themselves.

    Walking, comparing or copying such an object never ends; its unfolded size is summed bottom-up, each part once.
    """
    unfolded: dict[int, int] = {}
    waiting: list[tuple[Any, bool]] = [(loaded, False)]
    while waiting:
        node, children_done = waiting.pop()
        if not isinstance(node, Mapping | list | tuple) or (not children_done and id(node) in unfolded):
            continue
        children = list(node.values()) if isinstance(node, Mapping) else node
        if children_done:
            unfolded[id(node)] = 1 + sum(unfolded.get(id(child), 1) for child in children)
            if unfolded[id(node)] > _MAX_NODES:
                raise TooLarge("The checkpoint unfolds to far too many objects.", reason=_REASON)
        else:
            unfolded[id(node)] = _MAX_NODES  # still open: whoever meets it from below is inside a cycle
            waiting.append((node, True))
            waiting.extend((child, False) for child in children)


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(entry, torch.Tensor) for entry in value.values())


def _no_state_dict(found: str) -> InvalidModel:
    return InvalidModel(
        f"The checkpoint holds {found}, not a state dict.",
        reason=_REASON,
        hint="Save the weights with torch.save(model.state_dict(), path).",
    )


def _check_tensors(tensors: Mapping[str, torch.Tensor], file_bytes: int) -> None:
    if len(tensors) > _MAX_TENSORS:
        raise TooLarge(f"The checkpoint has {len(tensors)} tensors; {_MAX_TENSORS} are allowed.", reason=_REASON)
    total = 0
    seen = set()
    for name, tensor in tensors.items():
        _check_tensor(name, tensor)
        place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride())
        if place not in seen:
            seen.add(place)
            total += tensor.numel() * tensor.dtype.itemsize
    if total > max(_MAX_GROWTH * file_bytes, _ALWAYS_FINE_BYTES):
        raise TooLarge("The checkpoint's tensors are far larger than its file.", reason="tensor_too_large")


def _check_tensor(name: str, tensor: torch.Tensor) -> None:
    plain = type(tensor) in {torch.Tensor, torch.nn.Parameter} and tensor.layout is torch.strided
    if not plain or tensor.device.type != "cpu" or tensor.dtype not in DTYPE_NAMES or tensor.dim() > _MAX_RANK:
        raise InvalidModel(
            f"Tensor {name[:200]!r} is not a plain dense tensor ({tensor.dtype}, {tensor.layout}, "
            f"{tensor.dim()} dimensions).",
            reason=_REASON,
        )
    if tensor.numel() * tensor.dtype.itemsize > tensor.untyped_storage().nbytes():
        raise TooLarge(
            f"Tensor {name[:200]!r} has {tensor.numel()} elements, more than its storage holds.",
            reason="tensor_too_large",
        )
