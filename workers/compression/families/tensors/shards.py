"""Directories of safetensors files with an index, as large models come, made one file."""

import re
import shutil
from pathlib import Path
from typing import Final

from workers.compression.families.tensors.stored import StoredTensor, read_safetensors, write_safetensors
from workers.compression.specs.containers.archives import extract
from workers.compression.specs.containers.json_limits import parse_json
from workers.compression.specs.errors import InvalidModel, TooLarge

INDEX: Final = "model.safetensors.index.json"
_SHARD: Final = re.compile(r"[\w\-]+\.safetensors", re.ASCII)
_MAX_INDEX_BYTES: Final = 8 << 20


def join_shards(archive: Path, folder: Path, target: Path) -> None:
    """Writes all tensors of an archived directory to one file, in the order of its index; one at a time.

    Args:
        folder: Where the archive is unpacked; gone afterwards.

    Raises:
        InvalidModel: The index and the files contradict each other.
        EngineError: As ``archives.extract`` and ``read_safetensors``.
    """
    root = extract(archive, folder)
    named = _weight_map(root / INDEX)
    files = {shard: read_safetensors(_file(root, shard)) for shard in dict.fromkeys(named.values())}
    tensors: dict[str, StoredTensor] = {}
    for name, shard in named.items():
        if name not in files[shard].tensors:
            raise _contradiction(f"{name[:200]} is not in {shard}")
        tensors[name] = files[shard].tensors[name]
    for shard, content in files.items():
        for name in content.tensors:
            if named.get(name) != shard:
                raise _contradiction(f"{name[:200]} of {shard} is not named")
    shared = {alias: name for content in files.values() for alias, name in content.shared.items()}
    write_safetensors(target, tensors, {alias: name for alias, name in shared.items() if alias not in tensors})
    shutil.rmtree(folder)


def _weight_map(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise _contradiction("it is missing")
    if path.stat().st_size > _MAX_INDEX_BYTES:
        raise TooLarge(f"{INDEX} is larger than any index.", reason="safetensors_index")
    index = parse_json(path.read_bytes(), InvalidModel)
    named = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(named, dict) or not named or not all(isinstance(shard, str) for shard in named.values()):
        raise _contradiction("it has no weight_map")
    return named


def _file(root: Path, shard: str) -> Path:
    if not _SHARD.fullmatch(shard) or not (root / shard).is_file():
        raise _contradiction(f"{shard[:100]!r} is no safetensors file of the folder")
    return root / shard


def _contradiction(what: str) -> InvalidModel:
    return InvalidModel(f"The files and {INDEX} do not fit: {what}.", reason="safetensors_index")
