"""The files of a Hugging Face model: which are accepted, which kept aside unread, which refuse the upload."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from workers.compression.families.tensors.stored import StoredTensor, read_safetensors
from workers.compression.families.torch.transformers_config import refuse_dangerous_keys
from workers.compression.specs.containers.archives import extract
from workers.compression.specs.containers.json_limits import parse_json
from workers.compression.specs.errors import InvalidModel, TooLarge, UnsafeModel

CONFIG_NAME: Final = "config.json"
WEIGHTS_NAME: Final = "model.safetensors"
_INDEX_NAME: Final = "model.safetensors.index.json"
_SHARD: Final = re.compile(r"[\w\-]+\.safetensors", re.ASCII)
_COMPANIONS: Final = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "generation_config.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json",
    "*_Pooling/config.json", "*_Normalize/config.json", "readme.md", "license", "license.*", "*.txt",
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
_CODE: Final = (
    ".py", ".pyc", ".pyd", ".ipynb", ".so", ".dll", ".dylib", ".exe", ".sh", ".bat", ".ps1", ".js", ".jar",
)  # fmt: skip
_PICKLES: Final = (".bin", ".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill", ".npy", ".npz")
_MODULE_TYPES: Final = re.compile(r"sentence_transformers\.[\w.]+", re.ASCII)
_MAX_JSON_BYTES: Final = 8 << 20


@dataclass(frozen=True)
class ModelFolder:
    """A checked folder.

    Args:
        root: Where it lies.
        config: Content of ``config.json``.
        weights: The safetensors files.
        companions: Files relative to the root that travel along unread.
        notes: Sentences about what was left out.
    """

    root: Path
    config: dict[str, Any]
    weights: tuple[Path, ...]
    companions: tuple[Path, ...]
    notes: tuple[str, ...]

    def tensors(self) -> dict[str, StoredTensor]:
        """All tensors of all shards, values read when asked for."""
        found: dict[str, StoredTensor] = {}
        for path in self.weights:
            content = read_safetensors(path).tensors
            if not found.keys().isdisjoint(content):
                raise InvalidModel("Two weight files hold a tensor of the same name.", reason="hf_weights")
            found.update(content)
        return found

    def stored_bytes(self) -> int:
        """Bytes of configuration and weights."""
        return sum(path.stat().st_size for path in (*self.weights, self.root / CONFIG_NAME))

    def copy_companions(self, target: Path) -> None:
        """Copies the files that travel along into another folder."""
        for name in self.companions:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.root / name, target / name)


def open_folder(archive: Path, target: Path) -> ModelFolder:
    """Unpacks a ZIP or TAR into the empty folder ``target`` and checks what came out.

    Raises:
        UnsafeModel: Code, pickles, or configuration that makes loaders run code.
        InvalidModel: Configuration or weights are missing or contradict each other.
        EngineError: As ``archives.extract``.
    """
    root = extract(archive, target)
    companions, left_out = _sort_files(root)
    config = _read_json(root / CONFIG_NAME) if (root / CONFIG_NAME).is_file() else None
    if not isinstance(config, dict):
        raise InvalidModel("The folder has no config.json that is a JSON object.", reason="hf_config")
    refuse_dangerous_keys(config, CONFIG_NAME)
    for name in companions:
        if name.suffix == ".json" and name.name not in ("tokenizer.json", "vocab.json"):
            _check_companion(root / name)
    notes = [f"Left out: {', '.join(str(name)[:80] for name in left_out[:20])}."] if left_out else []
    return ModelFolder(root, config, tuple(_weight_files(root)), tuple(companions), tuple(notes))


def _sort_files(root: Path) -> tuple[list[Path], list[Path]]:
    companions, left_out = [], []
    for path in sorted(found for found in root.rglob("*") if found.is_file()):
        name = path.relative_to(root)
        suffix = name.suffix.lower()
        if suffix in _CODE:
            raise UnsafeModel(f"The folder holds the code file {str(name)[:100]!r}.", reason="hf_code")
        if suffix in _PICKLES:
            raise UnsafeModel(
                f"The folder holds {str(name)[:100]!r}, which is a pickle or may be one.",
                reason="hf_pickle",
                hint="Upload the folder with safetensors only.",
            )
        if any(fnmatchcase(name.as_posix().lower(), pattern.lower()) for pattern in _COMPANIONS):
            companions.append(name)
        elif suffix == ".safetensors" and len(name.parts) > 1:
            raise InvalidModel(
                f"{str(name)[:100]!r} belongs to a model of several parts; one model per folder is served.",
                reason="hf_weights",
            )
        elif suffix != ".safetensors" and name.as_posix() not in (CONFIG_NAME, _INDEX_NAME):
            left_out.append(name)
    return companions, left_out


def _weight_files(root: Path) -> Iterator[Path]:
    if (root / _INDEX_NAME).is_file():
        index = _read_json(root / _INDEX_NAME)
        named = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(named, dict) or not named:
            raise InvalidModel("The index of the weights has no weight_map.", reason="hf_weights")
        files = {_shard(root, file) for file in named.values()}
    else:
        files = set(root.glob("*.safetensors"))
        if len(files) > 1 and root / WEIGHTS_NAME in files:
            files = {root / WEIGHTS_NAME}
    if not files:
        raise InvalidModel("The folder holds no safetensors file.", reason="hf_weights")
    yield from sorted(files)


def _shard(root: Path, name: object) -> Path:
    if not isinstance(name, str) or not _SHARD.fullmatch(name) or not (root / name).is_file():
        raise InvalidModel(
            f"The index of the weights names {str(name)[:100]!r}, which is no safetensors file of the folder.",
            reason="hf_weights",
        )
    return root / name


def _check_companion(path: Path) -> None:
    document = _read_json(path)
    refuse_dangerous_keys(document, path.name)
    if path.name != "modules.json" or not isinstance(document, list):
        return
    for module in document:
        kind = module.get("type") if isinstance(module, dict) else None
        if not isinstance(kind, str) or not _MODULE_TYPES.fullmatch(kind):
            raise UnsafeModel(f"modules.json names the class {str(kind)[:100]!r}.", reason="hf_code")


def _read_json(path: Path) -> Any:
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise TooLarge(f"{path.name} is larger than any configuration.", reason="hf_config")
    return parse_json(path.read_bytes(), InvalidModel)
