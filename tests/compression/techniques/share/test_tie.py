from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from tests import trained
from tests.compression.techniques.share.siblings import one_layer_trained_twice, tensors_of_two_models
from workers.compression.context import Context
from workers.compression.families.onnx.family import open_model as open_onnx
from workers.compression.families.tensors.safetensors_file import open_model as open_safetensors
from workers.compression.specs.errors import NothingCompressed
from workers.compression.specs.steps.share import TieShare
from workers.compression.techniques.share.identity import same_as
from workers.compression.techniques.share.tie.onnx import tie_initializers
from workers.compression.techniques.share.tie.tensors import tie_tensors


def test_an_onnx_model_whose_layers_repeat_shrinks_by_what_repeats_and_answers_the_same(tmp_path: Path) -> None:
    path = one_layer_trained_twice(tmp_path / "repeats.onnx")
    original = open_onnx(path, Context(scratch=tmp_path))
    rows = trained.digits_split()[1].reshape(-1, 1, 8, 8)
    before = original.run({"input": rows})

    tied = tie_initializers(original, TieShare(), Context(scratch=tmp_path))

    tied.save(tmp_path / "tied.onnx")
    saved = path.stat().st_size - (tmp_path / "tied.onnx").stat().st_size
    assert saved > 64 * 64 * 4
    reopened = open_onnx(tmp_path / "tied.onnx", Context(scratch=tmp_path))
    for left, right in zip(before, reopened.run({"input": rows}), strict=True):
        assert np.array_equal(left, right)


def test_two_models_in_one_file_store_their_common_layers_once(tmp_path: Path) -> None:
    path = tensors_of_two_models(tmp_path / "pair.safetensors")
    tensors = safetensors.torch.load_file(path)

    tied = tie_tensors(open_safetensors(path, Context(scratch=tmp_path)), TieShare(), Context(scratch=tmp_path))

    tied.save(tmp_path / "tied.safetensors")
    assert (tmp_path / "tied.safetensors").stat().st_size < 0.65 * path.stat().st_size
    state = open_safetensors(tmp_path / "tied.safetensors", Context(scratch=tmp_path))
    for name, values in tensors.items():
        stored = state.stored[state.shared.get(name, name)].load()
        assert torch.equal(stored, values), name


def test_nothing_is_tied_that_differs_in_one_bit_type_or_shape() -> None:
    values = np.arange(64, dtype=np.float32)
    other = values.copy()
    other[5] = np.nextafter(other[5], 9.0)
    tensors = {
        "a": values,
        "bit": other,
        "type": values.view(np.int32),
        "shape": values.reshape(8, 8),
        "sign of zero": np.negative(np.zeros(64, np.float32)),
        "zero": np.zeros(64, np.float32),
        "same": values.copy(),
    }

    assert same_as(tensors.items()) == {"same": "a"}


def test_a_model_without_repeats_is_refused(tmp_path: Path) -> None:
    model = open_onnx(trained.write_onnx("cnn", tmp_path / "cnn.onnx"), Context(scratch=tmp_path))

    with pytest.raises(NothingCompressed, match="No two stored tensors"):
        tie_initializers(model, TieShare(), Context(scratch=tmp_path))
