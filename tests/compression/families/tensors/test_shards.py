"""Shards with an index become one file; an index that does not fit its files is refused."""

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from workers.compression.context import Context
from workers.compression.engine import perform
from workers.compression.specs.containers.sniffing import sniff_model
from workers.compression.specs.errors import EngineError, InvalidModel
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.messages import Compress, Compressed, InspectModel, ModelFile, ModelInspection
from workers.compression.specs.steps.quantize_weights import WeightOnlyQuantize

SHARDS = {
    "model-00001-of-00002.safetensors": {"a.weight": torch.arange(4096.0).reshape(64, 64), "a.bias": torch.ones(64)},
    "model-00002-of-00002.safetensors": {"b.weight": torch.full((64, 64), 2.0, dtype=torch.bfloat16)},
}
INDEX = {name: shard for shard, tensors in SHARDS.items() for name in tensors}


def archive(path: Path, index: dict[str, Any], *, tar: bool = False) -> Path:
    files = {"folder/model.safetensors.index.json": json.dumps({"metadata": {}, "weight_map": index}).encode()}
    files |= {f"folder/{name}": save(tensors, {"format": "pt"}) for name, tensors in SHARDS.items()}
    if tar:
        with tarfile.open(path, "w:gz") as writing:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                writing.addfile(entry, io.BytesIO(content))
    else:
        with zipfile.ZipFile(path, "w") as packing:
            for name, content in files.items():
                packing.writestr(name, content)
    return path


@pytest.mark.parametrize("tar", [False, True])
def test_shards_become_one_file_and_are_quantized_like_one(tar: bool, tmp_path: Path) -> None:
    upload = archive(tmp_path / "upload", INDEX, tar=tar)
    assert sniff_model(upload) is ModelFormat.SAFETENSORS
    inspection = perform(InspectModel(path=str(upload)), tmp_path, Context(scratch=tmp_path))
    assert isinstance(inspection, ModelInspection)
    assert inspection.clean == "out/clean.safetensors"
    clean = tmp_path / inspection.clean

    found = load_file(clean)
    wanted = {name: tensor for tensors in SHARDS.values() for name, tensor in tensors.items()}
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    assert not (tmp_path / "shards").exists()

    request = Compress(model=ModelFile(path=str(clean), format=ModelFormat.SAFETENSORS), recipe=(WeightOnlyQuantize(),))
    made = perform(request, tmp_path, Context(scratch=tmp_path))
    assert isinstance(made, Compressed)
    assert (tmp_path / made.path).stat().st_size < clean.stat().st_size / 2


@pytest.mark.parametrize(
    "index",
    [
        {**INDEX, "c.weight": "model-00001-of-00002.safetensors"},
        {**INDEX, "a.weight": "model-00002-of-00002.safetensors"},
        {**INDEX, "b.weight": "../../etc/passwd"},
        {name: shard for name, shard in INDEX.items() if name != "a.bias"},
        {},
        {"a.weight": 3},
    ],
    ids=["not-there", "elsewhere", "outside", "unnamed", "empty", "number"],
)
def test_an_index_that_does_not_fit_its_files_is_refused(index: dict[str, Any], tmp_path: Path) -> None:
    upload = archive(tmp_path / "upload", index)
    with pytest.raises(InvalidModel) as refusal:
        perform(InspectModel(path=str(upload)), tmp_path, Context(scratch=tmp_path))
    assert refusal.value.reason == "safetensors_index"


def test_shards_beside_a_pickle_are_no_bare_tensors(tmp_path: Path) -> None:
    upload = archive(tmp_path / "upload", INDEX)
    with zipfile.ZipFile(upload, "a") as packing:
        packing.writestr("folder/pytorch_model.bin", b"x")
    with pytest.raises(EngineError):
        sniff_model(upload)
