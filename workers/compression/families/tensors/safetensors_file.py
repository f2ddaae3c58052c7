"""safetensors files: accepted as they are once the header was checked; directories of them become one file."""

from dataclasses import replace
from pathlib import Path

from workers.compression.context import Context
from workers.compression.families.tensors.model import TensorsModel
from workers.compression.families.tensors.packed_file import joined, parted
from workers.compression.families.tensors.shards import join_shards
from workers.compression.families.tensors.snippets import safetensors_snippet
from workers.compression.families.tensors.stored import read_safetensors, write_safetensors
from workers.compression.specs.containers.archives import archive_kind
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.messages import ModelInspection


class SafetensorsModel(TensorsModel):
    """Tensors that go back to the user as a ``.safetensors`` file."""

    format = ModelFormat.SAFETENSORS
    extension = ".safetensors"

    def save(self, path: Path) -> None:
        """Writes the tensors one at a time."""
        write_safetensors(path, *parted(self.content))

    def load_snippet(self, name: str) -> str:
        """Opens the file with nothing but safetensors, torch and numpy, and gives plain tensors."""
        return safetensors_snippet(name, self.stored, self.shared)


def inspect(path: Path, out: Path, context: Context) -> ModelInspection:
    """Checks the header and describes the tensors; a file is its own clean form, shards are joined to one."""
    if archive_kind(path) is None:
        return open_model(path, context).inspection(None, {}, [])
    clean = out / "clean.safetensors"
    join_shards(path, context.scratch / "shards", clean)
    return open_model(clean, context).inspection(f"{out.name}/{clean.name}", {}, [])


def open_model(path: Path, context: Context) -> SafetensorsModel:
    """Opens the file; values are read when asked for."""
    content = replace(read_safetensors(path), scratch=context.scratch)
    return SafetensorsModel(joined(content), path.stat().st_size)
