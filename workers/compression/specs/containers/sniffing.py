"""What a file is, by its content and never by its name, with every check that needs no library.

``sniff_model`` and ``sniff_dataset`` are cheap enough for the upload request itself: they read heads, headers and
directories, not tensors. What they let through is only a candidate: a sandboxed child inspects it further.
"""

import codecs
from pathlib import Path
from typing import NoReturn

from workers.compression.specs.containers.archive_kinds import sniff_dataset_zip, sniff_model_tar, sniff_model_zip
from workers.compression.specs.containers.archives import archive_kind
from workers.compression.specs.containers.npz_headers import MAGIC as NPY_MAGIC
from workers.compression.specs.containers.protobuf_walk import looks_like_onnx
from workers.compression.specs.containers.safetensors_header import read_header
from workers.compression.specs.errors import EngineError, InvalidDataset, InvalidModel, UnsupportedFormat
from workers.compression.specs.formats import DatasetFormat, ModelFormat

_HEAD = 4096
_PICKLE_HINT = "Pickles can run code when they are loaded. Export to ONNX, safetensors, torch.export or skops."
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"\x5d\x00\x00", b"ZF")
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_TORCH_LEGACY = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_OTHER_FORMATS = (
    (0, b"\x89HDF\r\n\x1a\n", "HDF5 (Keras)", "Export the model to ONNX."),
    (4, b"TFL3", "TensorFlow Lite", "Export the model to ONNX."),
    (0, b"GGUF", "GGUF", "Upload the original safetensors."),
    (0, b"PRSZ", "an archive of Pressroom", "Upload what `pressroom unpack` makes of it."),
    (0, NPY_MAGIC, "a numpy array", "Upload tensors as safetensors."),
    (0, b"PAR1", "Parquet", "Upload it as a dataset."),
    (0, b"%PDF", "PDF", None),
    (0, b"\x89PNG", "PNG", None),
    (0, b"\xff\xd8\xff", "JPEG", None),
)
_NATIVE = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xfe\xed\xfa\xcf", b"\xca\xfe\xba\xbe")


def sniff_model(path: Path) -> ModelFormat:
    """The model format that the bytes of ``path`` promise.

    Raises:
        UnsupportedFormat: A format that is never loaded or not known (``format_refused``, ``checkpoint_not_zip``,
            ``pt2_native_code``, ``format_unknown``).
        InvalidModel: Empty, truncated, a web page or a Git LFS pointer in place of the model, a broken header.
        UnsafeModel: An archive or a header that hides something (``archive_entry_refused``, ``safetensors_invalid``).
        TooLarge: A bomb.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
    _refuse_stand_ins(head, InvalidModel)
    kind = archive_kind(path)
    if kind == "zip":
        return sniff_model_zip(path)
    if kind is not None:
        return sniff_model_tar(path)
    if head[8:9] == b"{" and 0 < int.from_bytes(head[:8], "little") <= size - 8:
        read_header(path)
        return ModelFormat.SAFETENSORS
    _refuse_pickle(head)
    _refuse_native(head)
    for offset, magic, name, hint in _OTHER_FORMATS:
        if head[offset:].startswith(magic):
            raise UnsupportedFormat(f"The file is {name}, not a model format that is served.", reason=None, hint=hint)
    _refuse_tree_libraries(head)
    with path.open("rb") as file:
        if looks_like_onnx(file, size):
            return ModelFormat.ONNX
    if head[8:9] == b"{":
        read_header(path)
    raise UnsupportedFormat(
        "The content is of no known model format.",
        reason="format_unknown",
        hint="Served are ONNX, torch.export .pt2, Hugging Face folders, safetensors, state dicts and skops.",
    )


def sniff_dataset(path: Path, filename: str = "") -> DatasetFormat:
    """The dataset format that the bytes of ``path`` promise; ``filename`` is only shown in hints.

    Raises:
        UnsupportedFormat: Pickles and other formats that are not served.
        InvalidDataset: Empty, not UTF-8, a stand-in, or an archive that breaks the rules.
        TooLarge: A bomb.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    _refuse_stand_ins(head, InvalidDataset)
    kind = archive_kind(path)
    if kind == "zip":
        return sniff_dataset_zip(path)
    if head.startswith(b"PAR1"):
        return DatasetFormat.PARQUET
    _refuse_pickle(head)
    _refuse_native(head)
    if kind is not None or head.startswith(NPY_MAGIC) or b"\0" in head:
        raise UnsupportedFormat(
            f"{ascii(filename)[:120] if filename else 'The file'} is of no dataset format that is served.",
            reason="format_unknown",
            hint="Served are .npz, .csv, .parquet, .jsonl and .zip with one folder of images per class.",
        )
    return _sniff_text(head)


def _sniff_text(head: bytes) -> DatasetFormat:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head).lstrip("\ufeff \t\r\n")
    except UnicodeDecodeError as error:
        raise InvalidDataset("The text is not UTF-8.", reason="csv_encoding") from error
    if text.startswith("["):
        raise InvalidDataset("The file is one JSON list.", reason="jsonl_invalid", hint="Write one object per line.")
    return DatasetFormat.JSONL if text.startswith("{") else DatasetFormat.CSV


def _refuse_stand_ins(head: bytes, error: type[EngineError]) -> None:
    """Files that commonly arrive in place of the real one."""
    if not head.strip(b"\0 \t\r\n"):
        raise error("The file is empty.", reason="empty_file")
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        raise error(
            "The file is a Git LFS pointer, not the content it points to.",
            reason="git_lfs_pointer",
            hint="Run `git lfs pull` and upload the real file.",
        )
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        raise error(
            "The file is a web page or XML, not what it was named.",
            reason="web_page",
            hint="The download probably ended on a login or error page.",
        )


def _refuse_pickle(head: bytes) -> None:
    if head[0] == 0x80 and head[1:2] and head[1] <= 5:
        if _TORCH_LEGACY in head[:32]:
            raise UnsupportedFormat(
                "The checkpoint is in PyTorch's old pickle format, which is never loaded.",
                reason="checkpoint_not_zip",
                hint="Load it and save it again with torch.save (1.6 or newer), or better as safetensors.",
            )
        _refuse("The file is a Python pickle", _PICKLE_HINT)
    if head.startswith((*_COMPRESSED, *_ZLIB)):
        _refuse("The file is a compressed stream, as joblib writes them", _PICKLE_HINT)
    if head.startswith(
        (b"c__builtin__\n", b"cposix\n", b"cos\n", b"(lp0\n", b"(dp0\n", b"ccopy_reg\n", b"cbuiltins\n")
    ):
        _refuse("The file is a Python pickle in text form", _PICKLE_HINT)


def _refuse_native(head: bytes) -> None:
    if head.startswith(_NATIVE):
        raise UnsupportedFormat("The file is native machine code, which is never loaded.", reason="pt2_native_code")


def _refuse_tree_libraries(head: bytes) -> None:
    if head.startswith(b"tree\nversion="):
        _refuse("The file is a LightGBM text model", None)
    if head.lstrip().startswith(b"{"):
        if b'"learner"' in head or b'"version"' in head[:64]:
            _refuse("The file is an XGBoost JSON model", None)
        if b"learner" in head[:64]:
            _refuse("The file is an XGBoost model in UBJ", "Save it as JSON: booster.save_model('model.json').")
    if head.startswith(b"binf") or head[:16].find(b"learner") >= 0:
        _refuse("The file is a binary XGBoost model", "Save it as JSON: booster.save_model('model.json').")


def _refuse(what: str, hint: str | None) -> NoReturn:
    raise UnsupportedFormat(f"{what}, which is not loaded.", reason="format_refused", hint=hint)
