"""State dicts saved by ``torch.save``: gated, unwrapped to flat tensors, kept as safetensors."""

import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from workers.compression.context import Context
from workers.compression.families.tensors.layout import KEY
from workers.compression.families.tensors.model import TensorsModel
from workers.compression.families.tensors.packed_file import joined, parted
from workers.compression.families.tensors.pickle_gate import MAX_PICKLE_BYTES, check_pickle
from workers.compression.families.tensors.snippets import state_dict_snippet
from workers.compression.families.tensors.stored import StoredTensor, TensorFile, read_safetensors, write_safetensors
from workers.compression.families.tensors.torch_archive import open_torch_archive
from workers.compression.families.tensors.unwrapping import check_expansion, unwrap
from workers.compression.specs.errors import InvalidModel
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.messages import ModelInspection

_MEMBERS: Final = re.compile(r"data\.pkl|data/\d+|version|byteorder|\.format_version|\.storage_alignment|\.data/\w+")
_REASON: Final = "checkpoint_invalid"


class StateDictModel(TensorsModel):
    """Tensors that go back to the user as a ``.pth`` file."""

    format = ModelFormat.TORCH_STATE_DICT
    extension = ".pth"

    def save(self, path: Path) -> None:
        """Writes a flat dictionary with ``torch.save``; tied tensors share their storage as before."""
        stored, shared, layouts = parted(self.content)
        values: dict[str, object] = {name: tensor.load().detach().contiguous() for name, tensor in stored.items()}
        values.update({alias: values[name] for alias, name in shared.items()})
        values.update(layouts)
        # A path would put the file's name into the archive, and the same model must give the same bytes.
        with path.open("wb") as file:
            torch.save(values, file)
            file.flush()
            os.fsync(file.fileno())

    def load_snippet(self, name: str) -> str:
        """Opens the file with nothing but torch and numpy, and gives plain tensors."""
        return state_dict_snippet(name, self.stored)


def inspect(path: Path, out: Path, context: Context) -> ModelInspection:
    """Checks a checkpoint and writes its tensors to ``clean.safetensors`` below ``out``.

    Raises:
        UnsafeModel: The pickle could do more than build tensors.
        InvalidModel: No flat dictionary of tensors can be found in it.
        TooLarge: Tensors larger than the file that holds them.
    """
    content, notes = _read_checkpoint(path)
    clean = out / "clean.safetensors"
    write_safetensors(clean, content.tensors, content.shared, content.metadata)
    for note in notes:
        context.warn(note)
    model = StateDictModel(joined(read_safetensors(clean)), clean.stat().st_size)
    return model.inspection(f"{out.name}/{clean.name}", {}, notes)


def open_model(path: Path, context: Context) -> StateDictModel:
    """Opens the clean form (safetensors) or an artifact (``.pth``)."""
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    content = _read_checkpoint(path)[0] if is_zip else read_safetensors(path)
    return StateDictModel(joined(replace(content, scratch=context.scratch)), path.stat().st_size)


def _read_checkpoint(path: Path) -> tuple[TensorFile, list[str]]:
    _check_archive(path)
    loaded = _load(path)
    check_expansion(loaded)
    layouts = _layouts(loaded)
    tensors, notes = unwrap(loaded, file_bytes=path.stat().st_size)
    return replace(_without_copies(tensors), metadata=layouts), notes


def _layouts(loaded: Any) -> dict[str, str]:
    """The entry about weights in few bits, taken out of what was loaded."""
    text = loaded.pop(KEY, None) if isinstance(loaded, dict) else None
    return {KEY: text} if isinstance(text, str) else {}


def _check_archive(path: Path) -> None:
    archive = open_torch_archive(path, _REASON)
    for name in archive.members:
        if not _MEMBERS.fullmatch(name):
            raise InvalidModel(f"Member {name[:100]!r} is no part of a checkpoint.", reason=_REASON)
    if "byteorder" in archive.members and archive.read("byteorder", 16) != b"little":
        raise InvalidModel("The checkpoint was written on a big-endian machine.", reason=_REASON)
    check_pickle(archive.read("data.pkl", MAX_PICKLE_BYTES))


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (
        pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, ValueError, AttributeError,
        AssertionError, ArithmeticError,
    ) as error:  # fmt: skip
        raise InvalidModel("The checkpoint cannot be read as a dictionary of tensors.", reason=_REASON) from error


def _without_copies(tensors: Mapping[str, torch.Tensor]) -> TensorFile:
    """Names that show exactly the same memory become one tensor with aliases."""
    first_name: dict[tuple[object, ...], str] = {}
    stored: dict[str, StoredTensor] = {}
    shared: dict[str, str] = {}
    for name, tensor in tensors.items():
        place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride())
        original = first_name.setdefault((*place, tensor.dtype), name) if tensor.numel() else name
        if original == name:
            stored[name] = StoredTensor.of(tensor)
        else:
            shared[name] = original
    return TensorFile(stored, shared)
