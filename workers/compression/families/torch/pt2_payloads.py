"""Weights and constants of a ``.pt2``, mapped from the archive by the figures that torch wrote beside them."""

import mmap
import re
from typing import Any, Final

import torch

from workers.compression.families.tensors.stored import DTYPE_NAMES
from workers.compression.families.tensors.torch_archive import Member, TorchArchive
from workers.compression.families.torch.pt2_text import DOTTED_NAME
from workers.compression.specs.containers.json_limits import parse_json
from workers.compression.specs.errors import InvalidModel, TooLarge, UnsafeModel

_REASON: Final = "pt2_weights"
_MAX_CONFIG_BYTES: Final = 32 << 20
_MAX_TENSORS: Final = 20_000
_MAX_RANK: Final = 8
_PATH: Final = re.compile(r"(?:weight|tensor)_\d{1,9}")
_DTYPES: Final = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 12: torch.bool, 13: torch.bfloat16, 28: torch.uint16, 29: torch.float8_e4m3fn,
    30: torch.float8_e5m2,
}  # fmt: skip


def read_payloads(archive: TorchArchive, content: mmap.mmap, config_name: str, folder: str) -> dict[str, torch.Tensor]:
    """Tensors by the name the program knows them by; those that share a member share their memory.

    Raises:
        UnsafeModel: Something is stored as a pickle.
        InvalidModel: A tensor lies outside its member, or is described in an unknown way.
        TooLarge: A tensor has more elements than its member holds.
    """
    document = parse_json(archive.read(config_name, _MAX_CONFIG_BYTES), InvalidModel)
    entries = document.get("config") if isinstance(document, dict) else None
    if not isinstance(entries, dict):
        raise InvalidModel(f"{config_name} does not list tensors.", reason=_REASON)
    if len(entries) > _MAX_TENSORS:
        raise TooLarge(f"The program has more than {_MAX_TENSORS} tensors.", reason=_REASON)
    storages: dict[str, torch.Tensor] = {}
    found = {}
    for name, entry in entries.items():
        if not DOTTED_NAME.fullmatch(name):
            raise UnsafeModel(f"A tensor is called {name[:100]!r}.", reason="pt2_name")
        path = _checked_path(name, entry)
        member = archive.members.get(f"{folder}/{path}")
        if member is None:
            raise InvalidModel(f"The bytes of tensor {name!r} are missing.", reason=_REASON)
        if path not in storages:
            storages[path] = _bytes_of(content, member)
        tensor = _tensor(name, entry, storages[path])
        is_parameter = entry.get("is_param") is True
        found[name] = torch.nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor
    return found


def _checked_path(name: str, entry: Any) -> str:
    if not isinstance(entry, dict) or entry.get("use_pickle") is not False:
        raise UnsafeModel(
            f"{name!r} is stored as a pickle, which could run code.",
            reason="pt2_pickle",
            hint="Export a module whose weights are plain tensors.",
        )
    path = entry.get("path_name")
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise UnsafeModel(f"The bytes of {name!r} are said to lie in {str(path)[:100]!r}.", reason=_REASON)
    return path


def _bytes_of(content: mmap.mmap, member: Member) -> torch.Tensor:
    if not member.size:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(content, dtype=torch.uint8, count=member.size, offset=member.offset)


def _tensor(name: str, entry: dict[str, Any], storage: torch.Tensor) -> torch.Tensor:
    meta = entry.get("tensor_meta")
    meta = meta if isinstance(meta, dict) else {}
    dtype = _DTYPES.get(meta["dtype"]) if type(meta.get("dtype")) is int else None
    sizes, strides = _numbers(meta.get("sizes")), _numbers(meta.get("strides"))
    offset = _numbers([meta.get("storage_offset")])
    if dtype not in DTYPE_NAMES or sizes is None or strides is None or offset is None or meta.get("layout") != 7:
        raise InvalidModel(f"Tensor {name!r} is described in a way that is not served.", reason=_REASON)
    if len(sizes) != len(strides) or len(sizes) > _MAX_RANK:
        raise InvalidModel(f"Tensor {name!r} has shape and strides that do not fit.", reason=_REASON)
    held = storage.numel() // dtype.itemsize
    elements = torch.Size(sizes).numel()
    if elements > held:
        raise TooLarge(f"Tensor {name!r} has {elements} elements; its bytes hold {held}.", reason=_REASON)
    reach = offset[0] + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True)) + 1
    if elements and reach > held:
        raise InvalidModel(f"Tensor {name!r} reaches beyond its bytes.", reason=_REASON)
    if not elements:
        return torch.empty(sizes, dtype=dtype)
    return storage[: held * dtype.itemsize].view(dtype).as_strided(sizes, strides, offset[0])


def _numbers(values: Any) -> list[int] | None:
    """Plain numbers from torch's ``{"as_int": n}``; None where any is symbolic, negative or no number."""
    found = [value.get("as_int") if isinstance(value, dict) else None for value in values or []]
    fine = isinstance(values, list) and all(type(number) is int and 0 <= number < 1 << 40 for number in found)
    return [int(number) for number in found if number is not None] if fine else None
