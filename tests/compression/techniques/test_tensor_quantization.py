"""Bare tensors in few bits, bfloat16 and 8-bit floats, on a small network that was really trained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from tests import trained
from workers.compression.context import Context
from workers.compression.engine import perform
from workers.compression.families.tensors.model import TensorsModel
from workers.compression.families.tensors.quantized import QuantizedTensor
from workers.compression.families.tensors.safetensors_file import open_model
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.uniform import Grid, quantize
from workers.compression.registry import handler_for
from workers.compression.specs.errors import NumericalFailure, UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.messages import Compress, Compressed, Event, Log, ModelFile
from workers.compression.specs.step import Step
from workers.compression.specs.steps.quantize import BFloat16Quantize, Float8Quantize, Float16Quantize
from workers.compression.specs.steps.quantize_weights import KmeansQuantize, WeightOnlyQuantize

MINMAX: Any = {"range": "minmax"}


def weights() -> dict[str, torch.Tensor]:
    return dict(trained.trained("mlp").state_dict())


def quantized(
    spec: Step, folder: Path, tensors: Mapping[str, torch.Tensor] | None = None
) -> tuple[TensorsModel, Context]:
    """The model that the step makes of ``tensors``, and the context that was told about it."""
    safetensors.torch.save_file(dict(tensors or weights()), folder / "model.safetensors")
    context = Context(scratch=folder)
    model = open_model(folder / "model.safetensors", context)
    made = handler_for(type(spec), ModelFormat.SAFETENSORS)(model, spec, context)
    assert isinstance(made, TensorsModel)
    return made, context


def decibels(before: torch.Tensor, after: torch.Tensor) -> float:
    error = after.double() - before.double()
    return float(10 * torch.log10(before.double().square().sum() / error.square().sum()))


def noises(model: TensorsModel) -> list[float]:
    return [
        decibels(tensor, model.stored[name].load().float()) for name, tensor in weights().items() if tensor.dim() == 2
    ]


@pytest.mark.parametrize("scheme", ["affine", "symmetric", "minmax"])
@pytest.mark.parametrize(("bits", "granularity"), [(8, "channel"), (4, "group"), (3, "block"), (2, "tensor")])
def test_rounding_over_the_whole_range_is_the_formula(scheme: Any, bits: int, granularity: Any, tmp_path: Path) -> None:
    spec = WeightOnlyQuantize(bits=bits, scheme=scheme, granularity=granularity, **MINMAX)
    model, _ = quantized(spec, tmp_path)
    for name, tensor in weights().items():
        if tensor.dim() == 2:
            blocks = Blocks.of_matrix((tensor.shape[0], tensor.shape[1]), granularity)
            expected = quantize(tensor.numpy(), Grid.of(scheme, bits), blocks, scheme).restored()
            assert np.array_equal(model.stored[name].load().numpy(), expected)
        else:
            assert torch.equal(model.stored[name].load(), tensor)


def test_searching_the_range_beats_the_whole_range_and_hqq_is_no_worse(tmp_path: Path) -> None:
    whole = noises(quantized(WeightOnlyQuantize(bits=3, **MINMAX), tmp_path)[0])
    searched = noises(quantized(WeightOnlyQuantize(bits=3, range="mse"), tmp_path)[0])
    half_quadratic = noises(quantized(WeightOnlyQuantize(bits=3, algorithm="hqq"), tmp_path)[0])
    assert all(ours > theirs + 0.5 for ours, theirs in zip(searched, whole, strict=True))
    assert all(ours >= theirs for ours, theirs in zip(half_quadratic, searched, strict=True))


@pytest.mark.parametrize("bits", [2, 4])
def test_scales_bring_one_codebook_past_integers_in_groups(bits: int, tmp_path: Path) -> None:
    integers = quantized(WeightOnlyQuantize(bits=bits), tmp_path)[0]
    plain = quantized(KmeansQuantize(bits=bits), tmp_path)[0]
    scaled = quantized(KmeansQuantize(bits=bits, scale_group=16), tmp_path)[0]
    scaled.save(tmp_path / "scaled.safetensors")
    again = open_model(tmp_path / "scaled.safetensors", Context(scratch=tmp_path))
    assert noises(again) == noises(scaled)
    for others in (plain, integers):
        assert all(ours > theirs + 0.5 for ours, theirs in zip(noises(scaled), noises(others), strict=True))
    coarser = quantized(KmeansQuantize(bits=bits, scale_group=32), tmp_path)[0]
    assert plain.size_bytes() < coarser.size_bytes() < min(integers.size_bytes(), scaled.size_bytes())


def test_tables_globs_and_small_tensors_are_left_out(tmp_path: Path) -> None:
    tensors = {
        "embed_tokens.weight": torch.randn(40, 32),
        "fc.weight": torch.randn(40, 32),
        "skip.weight": torch.randn(40, 32),
        "tiny.weight": torch.randn(3, 32),
        "norm.weight": torch.ones(512),
    }
    spec = WeightOnlyQuantize(embeddings=False, exclude=("skip.*",))
    model, context = quantized(spec, tmp_path, tensors)
    assert [name for name, tensor in model.stored.items() if not tensor.is_plain] == ["fc.weight"]
    assert context.changes == ["1 of 3 weights stored as 4-bit integers, a scale per group"]


def test_a_tensor_that_would_not_get_smaller_stays_and_is_named(tmp_path: Path) -> None:
    tensors = {"wide.weight": torch.randn(64, 64), "half.weight": torch.randn(500, 1, dtype=torch.float16)}
    model, context = quantized(WeightOnlyQuantize(bits=8), tmp_path, tensors)
    assert model.stored["half.weight"].is_plain
    assert not model.stored["wide.weight"].is_plain
    assert "half.weight stays float16" in context.warnings[0]


def test_selecting_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedTechnique, match="of two axes"):
        quantized(WeightOnlyQuantize(include=("nothing.*",)), tmp_path)


@pytest.mark.parametrize(
    "spec", [WeightOnlyQuantize(**MINMAX), WeightOnlyQuantize(), Float8Quantize(), BFloat16Quantize()]
)
def test_tensors_that_are_not_finite_fail_with_their_name(spec: Step, tmp_path: Path) -> None:
    bad = torch.randn(64, 64)
    bad[3, 5] = torch.nan
    with pytest.raises(NumericalFailure, match=r"bad\.weight"):
        quantized(spec, tmp_path, {"fine.weight": torch.randn(64, 64), "bad.weight": bad})


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize(("variant", "least"), [("e4m3", 28.0), ("e5m2", 22.0)])
def test_8_bit_floats_come_back_scaled(granularity: Any, variant: Any, least: float, tmp_path: Path) -> None:
    model, _ = quantized(Float8Quantize(variant=variant, granularity=granularity), tmp_path)
    assert min(noises(model)) > least
    stored = [tensor for tensor in model.stored.values() if isinstance(tensor, QuantizedTensor)]
    assert all(tensor.parts[""].dtype.itemsize == 1 for tensor in stored)
    assert {tensor.parts["_scale"].shape[0] == 1 for tensor in stored} == {granularity == "tensor"}


def test_bfloat16_rounds_to_nearest_and_keeps_what_it_cannot_hold(tmp_path: Path) -> None:
    tensors = {"fc": torch.randn(9, 9), "count": torch.arange(3), "huge": torch.full((2, 2), 3.4e38)}
    model, context = quantized(BFloat16Quantize(), tmp_path, tensors)
    assert torch.equal(model.stored["fc"].load(), tensors["fc"].to(torch.bfloat16))
    assert model.stored["count"].dtype == torch.int64
    assert model.stored["huge"].dtype == torch.float32
    assert "huge stays" in context.warnings[0]


def test_what_is_in_few_bits_already_is_not_touched_again(tmp_path: Path) -> None:
    first, _ = quantized(WeightOnlyQuantize(), tmp_path)
    first.save(tmp_path / "again.safetensors")
    for spec in (WeightOnlyQuantize(bits=2), Float8Quantize()):
        again = open_model(tmp_path / "again.safetensors", Context(scratch=tmp_path))
        with pytest.raises(UnsupportedTechnique):
            handler_for(type(spec), ModelFormat.SAFETENSORS)(again, spec, Context(scratch=tmp_path))
    halves = open_model(tmp_path / "again.safetensors", Context(scratch=tmp_path))
    made = handler_for(Float16Quantize, ModelFormat.SAFETENSORS)(halves, Float16Quantize(), Context(scratch=tmp_path))
    assert isinstance(made, TensorsModel)
    assert noises(made) == noises(first)


class Telling(Context):
    """Takes note of all progress, however fast it comes."""

    def progress(self, fraction: float, message: str = "") -> None:
        self.log(f"{fraction:.3f} {message}")


def test_progress_names_each_tensor(tmp_path: Path) -> None:
    safetensors.torch.save_file(weights(), tmp_path / "model.safetensors")
    events: list[Event] = []
    model = ModelFile(path=str(tmp_path / "model.safetensors"), format=ModelFormat.SAFETENSORS)
    request = Compress(model=model, recipe=(WeightOnlyQuantize(**MINMAX),))
    assert isinstance(perform(request, tmp_path, Telling(scratch=tmp_path, emit=events.append)), Compressed)
    told = [event.message for event in events if isinstance(event, Log)]
    sizes = {name: tensor.numel() for name, tensor in weights().items() if tensor.dim() == 2}
    shares = np.cumsum([*sizes.values()]) / sum(sizes.values())
    expected = [f"{share:.3f} {name}" for share, name in zip(shares, sizes, strict=True)]
    assert [message for message in told if message in expected] == expected
