"""What a ZIP or TAR holds, told from the names of its entries."""

from collections.abc import Collection
from pathlib import Path, PurePosixPath

from workers.compression.specs.containers.archives import BROKEN_ARCHIVE, tar_files
from workers.compression.specs.containers.entry_names import refuse_entry
from workers.compression.specs.containers.limits import (
    ARCHIVE_LIMITS,
    CHECKPOINT_LIMITS,
    DATASET_REFUSALS,
    IMAGE_LIMITS,
    MODEL_REFUSALS,
    SKOPS_LIMITS,
)
from workers.compression.specs.containers.npz_headers import read_npz_headers
from workers.compression.specs.containers.zip_rules import check_sizes, checked_entries
from workers.compression.specs.errors import InvalidDataset, InvalidModel, UnsupportedFormat
from workers.compression.specs.formats import DatasetFormat, ModelFormat

CODE_SUFFIXES = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".exe", ".sh", ".pkl", ".pickle", ".joblib", ".dill")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_CONTENT_HINT = "Upload an ONNX file or a Hugging Face folder with config.json and safetensors."
_SAFETENSORS_INDEX = "model.safetensors.index.json"
_BROKEN_TAR = "The TAR archive is damaged."


def sniff_model_zip(path: Path) -> ModelFormat:
    """The model format of a ZIP; raises the refusals of ``sniff_model``."""
    entries = checked_entries(path, CHECKPOINT_LIMITS)
    names = [entry.filename for entry in entries]
    if "schema.json" in names:
        check_sizes(entries, path.stat().st_size, SKOPS_LIMITS)
        return ModelFormat.SKOPS
    if any(_below_top(name).startswith("data/aotinductor/") for name in names):
        raise UnsupportedFormat(
            "The .pt2 carries machine code compiled by AOTInductor, which is never loaded.",
            reason="pt2_native_code",
            hint="Save the program itself with torch.export.save.",
        )
    if _is_pt2(names):
        return ModelFormat.PT2
    if any(_below_top(name).startswith("code/") or _below_top(name) == "constants.pkl" for name in names):
        raise UnsupportedFormat(
            "The file is a TorchScript program, which is never loaded because it can run code.",
            reason="format_refused",
            hint="Export the model with torch.export or torch.onnx.export, or save its state dict.",
        )
    if any(_below_top(name) == "data.pkl" for name in names):
        return ModelFormat.TORCH_STATE_DICT
    check_sizes(entries, path.stat().st_size, ARCHIVE_LIMITS)
    return _sniff_folder(names)


def sniff_model_tar(path: Path) -> ModelFormat:
    """The model format of a TAR or TAR.GZ, which is unpacked on the fly to apply the archive rules to all of it."""
    try:
        names = [name for name, _ in tar_files(path)]
    except BROKEN_ARCHIVE as error:
        raise InvalidModel(_BROKEN_TAR, reason="archive_invalid") from error
    if {"sys_info", "pickle", "storages", "tensors"} & set(names) and "pickle" in names:
        raise UnsupportedFormat(
            "The checkpoint is in PyTorch's old tar format, which is never loaded.", reason="checkpoint_not_zip"
        )
    return _sniff_folder(names)


def sniff_dataset_zip(path: Path) -> DatasetFormat:
    """The dataset format of a ZIP; raises the refusals of ``sniff_dataset``."""
    entries = checked_entries(path, IMAGE_LIMITS, DATASET_REFUSALS)
    names = [entry.filename for entry in entries]
    if names and all(name.endswith(".npy") for name in names):
        read_npz_headers(path)
        return DatasetFormat.NPZ
    if any(name.lower().endswith(IMAGE_SUFFIXES) for name in names):
        return DatasetFormat.IMAGE_FOLDER
    if any(name.endswith(".npy") for name in names):
        raise InvalidDataset("The .npz holds entries that are no .npy arrays.", reason="npz_header")
    raise UnsupportedFormat(
        "The ZIP holds neither .npy arrays nor images.",
        reason="format_unknown",
        hint="Served archives are .npz and .zip with one folder of .png, .jpg or .webp images per class.",
    )


def _below_top(name: str) -> str:
    """``name`` without its first folder: PyTorch puts everything below one folder of arbitrary name."""
    return name.partition("/")[2]


def _is_pt2(names: Collection[str]) -> bool:
    inner = {_below_top(name) for name in names}
    if "serialized_exported_program.json" in names or "serialized_exported_program.json" in inner:
        raise UnsupportedFormat(
            "The .pt2 is of a PyTorch release before 2.8.",
            reason="pt2_version",
            hint="Export it again with a current PyTorch.",
        )
    programs = any(name.startswith("models/") and name.endswith(".json") for name in inner)
    return "archive_format" in inner or (programs and any(name.startswith("data/weights/") for name in inner))


def _sniff_folder(names: Collection[str]) -> ModelFormat:
    """The format of an archived folder: Hugging Face where weights lie beside a config, its ONNX file, or shards."""
    files = {PurePosixPath(name).name for name in names}
    onnx = [name for name in names if name.lower().endswith(".onnx")]
    weights = any(name.endswith((".safetensors", ".bin", ".pt", ".pth", ".pkl")) for name in files)
    if "config.json" in files and (weights or not onnx):
        return ModelFormat.HUGGINGFACE
    for name in names:
        if name.lower().endswith(CODE_SUFFIXES):
            raise refuse_entry(name, "is code or a pickle, which nothing needs to run the model", MODEL_REFUSALS)
    if onnx:
        return ModelFormat.ONNX
    if not names:
        raise InvalidModel("The archive is empty.", reason="empty_file")
    if _SAFETENSORS_INDEX in files and not any(name.endswith((".bin", ".pt", ".pth")) for name in files):
        return ModelFormat.SAFETENSORS
    if weights:
        raise InvalidModel(
            "The archive holds weights but no config.json.",
            reason="hf_config_missing",
            hint="Upload a single safetensors file or state dict as it is; shards together with their index.",
        )
    raise UnsupportedFormat("The archive holds no model that is served.", reason="format_unknown", hint=_CONTENT_HINT)
