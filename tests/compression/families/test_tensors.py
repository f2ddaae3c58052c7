import json
import pickle
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch

from tests import trained
from workers.compression.context import Context
from workers.compression.families.tensors import safetensors_file, state_dict
from workers.compression.families.tensors.pickle_gate import check_pickle
from workers.compression.families.tensors.stored import StoredTensor, read_safetensors, write_safetensors
from workers.compression.registry import handler_for
from workers.compression.specs.errors import EngineError, InvalidModel, TooLarge, UnsafeModel, UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.prune_weights import MagnitudePrune
from workers.compression.specs.steps.quantize import Float16Quantize


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(scratch=tmp_path)


def inspected(content: object, folder: Path, context: Context) -> tuple[state_dict.StateDictModel, tuple[str, ...]]:
    """The clean form of what ``torch.save`` makes of ``content``, opened, and the inspection's warnings."""
    torch.save(content, folder / "upload.pth")
    (folder / "out").mkdir()
    found = state_dict.inspect(folder / "upload.pth", folder / "out", context)
    assert found.clean == "out/clean.safetensors"
    return state_dict.open_model(folder / found.clean, context), found.warnings


def weights() -> dict[str, torch.Tensor]:
    return dict(trained.trained("mlp").state_dict())


def test_a_state_dict_survives_inspection_and_goes_back_as_pth(tmp_path: Path, context: Context) -> None:
    model, warnings = inspected(weights(), tmp_path, context)
    model.save(tmp_path / "back.pth")

    back = torch.load(tmp_path / "back.pth", weights_only=True)

    assert warnings == ()
    assert list(back) == list(weights())
    assert all(torch.equal(back[name], tensor) for name, tensor in weights().items())


def test_a_training_checkpoint_is_unwrapped_and_what_was_left_out_is_named(tmp_path: Path, context: Context) -> None:
    module = trained.mlp()
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    prefixed = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}

    model, warnings = inspected(
        {"epoch": 3, "state_dict": prefixed, "optimizer": optimizer.state_dict()}, tmp_path, context
    )

    assert dict(model.tensors()).keys() == module.state_dict().keys()
    assert any("epoch, optimizer" in warning for warning in warnings)
    assert any("module." in warning for warning in warnings)


def test_tied_tensors_are_stored_once_and_come_back_tied(tmp_path: Path, context: Context) -> None:
    table = torch.arange(12.0).reshape(3, 4)
    model, _ = inspected(OrderedDict(embedding=table, head=table, bias=torch.ones(3)), tmp_path, context)
    model.save(tmp_path / "back.pth")

    back = torch.load(tmp_path / "back.pth", weights_only=True)

    assert [name for name, _ in model.tensors()] == ["embedding", "bias"]
    assert back["head"].data_ptr() == back["embedding"].data_ptr()
    assert torch.equal(back["head"], table)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({"a": torch.ones(1).expand(1 << 30)}, TooLarge),
        ({"a": torch.eye(3).to_sparse()}, UnsafeModel),
        ({"a": 1, "b": "text"}, InvalidModel),
        ([torch.ones(2)], InvalidModel),
        ({"a": bytearray(b"x"), "b": torch.ones(1)}, UnsafeModel),
    ],
    ids=["stride-0", "sparse", "no-tensors", "list", "bytearray"],
)
def test_checkpoints_that_are_no_plain_state_dict_are_refused(
    content: object, error: type[EngineError], tmp_path: Path, context: Context
) -> None:
    with pytest.raises(error):
        inspected(content, tmp_path, context)


def test_a_checkpoint_that_unfolds_without_end_is_refused(tmp_path: Path, context: Context) -> None:
    laughs: list[object] = ["ha"]
    for _ in range(40):
        laughs = [laughs] * 10
    with pytest.raises(TooLarge, match="unfolds"):
        inspected({"a": torch.ones(1), "history": laughs}, tmp_path, context)


def test_a_checkpoint_that_holds_itself_is_refused(tmp_path: Path, context: Context) -> None:
    ring: list[object] = []
    ring.append(ring)
    with pytest.raises(TooLarge):
        inspected({"a": torch.ones(1), "ring": ring}, tmp_path, context)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_no_pickle_of_a_callable_passes_whatever_its_protocol(protocol: int) -> None:
    with pytest.raises(UnsafeModel) as refused:
        check_pickle(pickle.dumps({"a": Path.touch}, protocol=protocol))
    assert refused.value.reason == "checkpoint_unsafe_global"


def test_a_truncated_pickle_is_invalid() -> None:
    with pytest.raises(InvalidModel):
        check_pickle(pickle.dumps({"a": [1.0] * 100}, protocol=2)[:-7])


def test_prepended_bytes_are_refused(tmp_path: Path, context: Context) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(b"#!/bin/sh\n" + (tmp_path / "a.pth").read_bytes())
    with pytest.raises((InvalidModel, UnsafeModel)):
        state_dict.inspect(tmp_path / "b.pth", tmp_path, context)


def test_what_is_written_the_library_reads(tmp_path: Path) -> None:
    tensors = {
        "flag": torch.tensor([True, False, True]),
        "half": torch.arange(3, dtype=torch.float16),
        "brain": torch.tensor([[1.5, -2.0]], dtype=torch.bfloat16),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 4),
        "strided": torch.arange(6.0).reshape(2, 3).t(),
    }
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {name: StoredTensor.of(tensor) for name, tensor in tensors.items()}, {"alias": "half"})

    read = safetensors.torch.load_file(path)
    ours = read_safetensors(path)

    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert all(torch.equal(ours.tensors[name].load(), tensor) for name, tensor in tensors.items())
    assert ours.shared == {"alias": "half"}


def test_bfloat16_is_described_as_such(tmp_path: Path, context: Context) -> None:
    safetensors.torch.save_file({"a": torch.tensor([1.0, 0.0, 3.0], dtype=torch.bfloat16)}, tmp_path / "a.safetensors")

    inspection = safetensors_file.inspect(tmp_path / "a.safetensors", tmp_path, context)
    model = safetensors_file.open_model(tmp_path / "a.safetensors", context)

    assert inspection.clean is None
    assert (inspection.tensors[0].dtype, inspection.tensors[0].max) == ("bfloat16", 3.0)
    assert dict(model.tensors())["a"].dtype == ml_dtypes.bfloat16


def test_half_precision_halves_floats_and_leaves_counters(tmp_path: Path, context: Context) -> None:
    original = dict(trained.trained("cnn").state_dict())
    model, _ = inspected(original, tmp_path, context)

    handler_for(Float16Quantize, ModelFormat.TORCH_STATE_DICT)(model, Float16Quantize(), context).save(
        tmp_path / "h.pth"
    )

    halved = torch.load(tmp_path / "h.pth", weights_only=True)
    assert halved["1.num_batches_tracked"].dtype == torch.int64
    assert torch.equal(halved["0.weight"], original["0.weight"].half())
    assert (tmp_path / "h.pth").stat().st_size < 0.55 * (tmp_path / "upload.pth").stat().st_size


def test_values_beyond_half_precision_stay_and_are_named(tmp_path: Path, context: Context) -> None:
    model, _ = inspected({"huge": torch.tensor([1e6]), "fine": torch.ones(4)}, tmp_path, context)

    halved = handler_for(Float16Quantize, ModelFormat.SAFETENSORS)(model, Float16Quantize(), context)

    assert {name: array.dtype for name, array in halved.tensors()} == {"huge": np.float32, "fine": np.float16}
    assert "huge" in context.warnings[-1]


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_pruning_zeroes_exactly_the_share_asked_for(scope: str, tmp_path: Path, context: Context) -> None:
    model, _ = inspected(weights(), tmp_path, context)
    spec = MagnitudePrune.model_validate({"sparsity": 0.7, "scope": scope})

    pruned = dict(handler_for(MagnitudePrune, ModelFormat.SAFETENSORS)(model, spec, context).tensors())

    matrices = {name: array for name, array in pruned.items() if array.ndim == 2}
    zeros = {name: int(np.count_nonzero(array == 0)) for name, array in matrices.items()}
    if scope == "layer":
        assert zeros == {name: round(0.7 * array.size) for name, array in matrices.items()}
    assert sum(zeros.values()) == pytest.approx(0.7 * sum(array.size for array in matrices.values()), abs=len(matrices))
    assert all(np.array_equal(pruned[name], tensor) for name, tensor in weights().items() if tensor.dim() == 1)


def test_globs_that_select_nothing_say_so(tmp_path: Path, context: Context) -> None:
    model, _ = inspected(weights(), tmp_path, context)
    with pytest.raises(UnsupportedTechnique, match="selected"):
        handler_for(MagnitudePrune, ModelFormat.SAFETENSORS)(model, MagnitudePrune(include=("nothing.*",)), context)


def test_header_lists_tensors_by_item_size_so_that_mappings_are_aligned(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {"byte": torch.ones(3, dtype=torch.int8), "float": torch.ones(2), "long": torch.ones(1, dtype=torch.long)}
    write_safetensors(path, {name: StoredTensor.of(tensor) for name, tensor in tensors.items()}, {})

    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])

    assert [name for name in header if name != "__metadata__"] == ["long", "float", "byte"]
