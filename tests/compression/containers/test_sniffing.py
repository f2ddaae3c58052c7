import gzip
import io
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.numpy
import skops.io
import torch
from sklearn.tree import DecisionTreeClassifier

from workers.compression.specs.containers.sniffing import sniff_dataset, sniff_model
from workers.compression.specs.errors import Code, EngineError
from workers.compression.specs.formats import DatasetFormat, ModelFormat


def onnx_bytes() -> bytes:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value("x", 1, [1])], [value("y", 1, [1])]
    )
    return bytes(onnx.helper.make_model(graph).SerializeToString())


def torch_bytes(*, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return buffer.getvalue()


def tarred(*names: str, mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 7
            archive.addfile(member, io.BytesIO(b"content"))
    return buffer.getvalue()


def skops_bytes() -> bytes:
    return skops.io.dumps(DecisionTreeClassifier().fit([[0], [1]], [0, 1]))


MODELS = {
    "onnx": (onnx_bytes, ModelFormat.ONNX),
    "truncated onnx": (lambda: onnx_bytes()[:-4], ModelFormat.ONNX),
    "safetensors": (lambda: safetensors.numpy.save({"a": np.zeros(2)}), ModelFormat.SAFETENSORS),
    "state dict": (torch_bytes, ModelFormat.TORCH_STATE_DICT),
    "pt2": (lambda: zipped("m/archive_format", "m/models/model.json", "m/data/weights/w"), ModelFormat.PT2),
    "skops": (skops_bytes, ModelFormat.SKOPS),
    "hf zip": (lambda: zipped("m/config.json", "m/model.safetensors"), ModelFormat.HUGGINGFACE),
    "hf tar": (lambda: tarred("config.json", "model.safetensors", "tokenizer.json"), ModelFormat.HUGGINGFACE),
    "onnx zip": (lambda: zipped("model.onnx", "model.onnx.data", "config.json"), ModelFormat.ONNX),
}


@pytest.mark.parametrize("case", MODELS)
def test_models_are_known_by_content_whatever_they_are_called(tmp_path: Path, case: str) -> None:
    content, wanted = MODELS[case]
    (tmp_path / "upload.png").write_bytes(content())
    assert sniff_model(tmp_path / "upload.png") is wanted


REFUSED_MODELS = {
    "pickle": (lambda: pickle.dumps([1]), Code.UNSUPPORTED_FORMAT, "format_refused"),
    "pickle protocol 0": (lambda: b"cos\nsystem\n(S'true'\ntR.", Code.UNSUPPORTED_FORMAT, "format_refused"),
    "joblib gzip": (lambda: gzip.compress(pickle.dumps([1])), Code.UNSUPPORTED_FORMAT, "format_refused"),
    "legacy torch": (lambda: torch_bytes(legacy=True), Code.UNSUPPORTED_FORMAT, "checkpoint_not_zip"),
    "torch tar": (
        lambda: tarred("sys_info", "pickle", "storages", "tensors", mode="w"),
        Code.UNSUPPORTED_FORMAT,
        "checkpoint_not_zip",
    ),
    "torchscript": (
        lambda: zipped("m/data.pkl", "m/code/a.py", "m/constants.pkl"),
        Code.UNSUPPORTED_FORMAT,
        "format_refused",
    ),
    "aotinductor": (
        lambda: zipped("m/archive_format", "m/data/aotinductor/a/b.so"),
        Code.UNSUPPORTED_FORMAT,
        "pt2_native_code",
    ),
    "old pt2": (lambda: zipped("serialized_exported_program.json"), Code.UNSUPPORTED_FORMAT, "pt2_version"),
    "elf": (lambda: b"\x7fELF" + bytes(100), Code.UNSUPPORTED_FORMAT, "pt2_native_code"),
    "xgboost json": (lambda: b'{"learner":{"attributes":{}}}', Code.UNSUPPORTED_FORMAT, "format_refused"),
    "xgboost ubj": (
        lambda: b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{",
        Code.UNSUPPORTED_FORMAT,
        "format_refused",
    ),
    "lightgbm": (lambda: b"tree\nversion=v4\nnum_class=1\n", Code.UNSUPPORTED_FORMAT, "format_refused"),
    "noise": (lambda: bytes(range(255, 0, -1)), Code.UNSUPPORTED_FORMAT, "format_unknown"),
    "zip of nothing": (lambda: zipped("readme.txt"), Code.UNSUPPORTED_FORMAT, "format_unknown"),
    "empty": (lambda: b"", Code.INVALID_MODEL, "empty_file"),
    "web page": (lambda: b"\n<!DOCTYPE html><html>", Code.INVALID_MODEL, "web_page"),
    "lfs pointer": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        Code.INVALID_MODEL,
        "git_lfs_pointer",
    ),
    "weights without config": (lambda: zipped("model.safetensors"), Code.INVALID_MODEL, "hf_config_missing"),
    "zip out of itself": (lambda: zipped("../model.onnx"), Code.UNSAFE_MODEL, "archive_entry_refused"),
}


@pytest.mark.parametrize("case", REFUSED_MODELS)
def test_what_is_never_loaded_is_refused_with_the_word_for_it(tmp_path: Path, case: str) -> None:
    content, code, reason = REFUSED_MODELS[case]
    (tmp_path / "model.onnx").write_bytes(content())
    with pytest.raises(EngineError) as refusal:
        sniff_model(tmp_path / "model.onnx")
    assert (refusal.value.code, refusal.value.reason) == (code, reason)


def npz_bytes() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, input=np.zeros(3))
    return buffer.getvalue()


DATASETS = {
    "npz": (npz_bytes, DatasetFormat.NPZ),
    "csv": ("größe,target\n1,2\n".encode, DatasetFormat.CSV),
    "jsonl": (lambda: b'\n{"text": "a"}\n', DatasetFormat.JSONL),
    "parquet": (lambda: b"PAR1....PAR1", DatasetFormat.PARQUET),
    "images": (lambda: zipped("cat/1.PNG", "dog/2.jpeg"), DatasetFormat.IMAGE_FOLDER),
}


@pytest.mark.parametrize("case", DATASETS)
def test_datasets_are_known_by_content(tmp_path: Path, case: str) -> None:
    content, wanted = DATASETS[case]
    (tmp_path / "upload").write_bytes(content())
    assert sniff_dataset(tmp_path / "upload", "upload") is wanted


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (pickle.dumps([1]), Code.UNSUPPORTED_FORMAT),
        (b"\x93NUMPY\x01\x00", Code.UNSUPPORTED_FORMAT),
        (gzip.compress(b"a,b\n"), Code.UNSUPPORTED_FORMAT),
        (zipped("a.exe"), Code.UNSUPPORTED_FORMAT),
        (zipped("a.npy", "readme.txt"), Code.INVALID_DATASET),
        (zipped("../cat/1.png"), Code.INVALID_DATASET),
        (b"", Code.INVALID_DATASET),
        (b"[1, 2]", Code.INVALID_DATASET),
        (b"caf\xe9,b\n", Code.INVALID_DATASET),
    ],
    ids=("pickle", "npy", "gzip", "zip of a program", "npz and text", "climbing name", "empty", "json", "latin-1"),
)
def test_other_datasets_are_refused(tmp_path: Path, content: bytes, code: Code) -> None:
    (tmp_path / "data.csv").write_bytes(content)
    with pytest.raises(EngineError) as refusal:
        sniff_dataset(tmp_path / "data.csv", "data.csv")
    assert refusal.value.code is code


def test_the_checks_of_the_api_process_import_no_numpy() -> None:
    code = (
        "import sys, workers.compression.specs.containers.sniffing, workers.compression.specs.matching;"
        "sys.exit('numpy' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
