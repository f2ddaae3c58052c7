"""Weights become codes into codebooks in every format, heed activations, and learn their values."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests import trained
from tests.compression.judging import accuracy, cosine, logits
from tests.compression.training.attempts import Attempt, attempt
from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.model import WeightPieces
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.families.weights import as_compressible
from workers.compression.registry import family, handler_for
from workers.compression.specs.errors import NumericalFailure, UnsupportedTechnique
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import Data, DatasetFile, ModelFile
from workers.compression.specs.steps.finetune import RecoverFinetune
from workers.compression.specs.steps.quantize_weights import KmeansQuantize

Open = Callable[[str], OnnxModel]
Digits = Callable[..., Dataset]
quantized = handler_for(KmeansQuantize, ModelFormat.ONNX)


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
@pytest.mark.parametrize("bits", [2, 4, 6])
def test_a_network_shrinks_to_its_codes_and_keeps_its_answers(
    bits: int, granularity: str, open_onnx: Open, digits: Digits, tmp_path: Path
) -> None:
    original, rows = open_onnx("mlp"), digits("mlp")
    spec = KmeansQuantize.model_validate({"bits": bits, "granularity": granularity, "group_size": 32})
    context = Context(scratch=tmp_path)
    made = quantized(open_onnx("mlp"), spec, context)

    books = {"tensor": 0, "channel": (256 + 128 + 10) * (2 << bits), "group": (8 + 4 + 1) * (2 << bits)}
    codes = (64 * 256 + 256 * 128 + 128 * 10) * bits // 8
    assert made.size_bytes() < codes + books[granularity] + 12_000
    assert cosine(logits(original, rows), logits(made, rows)) > {2: 0.96, 4: 0.998, 6: 0.9999}[bits]
    assert context.changes[0].startswith(f"3 of 3 weights of at least 512 values stored as {bits}-bit codes")


def test_finer_codebooks_are_nearer_to_the_weights(open_onnx: Open, tmp_path: Path) -> None:
    errors = {}
    for granularity in ("tensor", "group", "channel"):
        model = as_compressible(open_onnx("cnn"))
        before = {weight.name: model.matrix(weight).copy() for weight in model.weights()}
        spec = KmeansQuantize.model_validate({"bits": 3, "granularity": granularity, "group_size": 8})
        made = quantized(model, spec, Context(scratch=tmp_path))
        after = [layer.weights for layer in made.stored_layers() if layer.bits < 8]
        errors[granularity] = sum(
            float(np.square(old.reshape(-1) - new.reshape(-1)).sum())
            for old, new in zip((v for v in before.values() if v.size >= 1024), after, strict=True)
        )
    assert errors["channel"] < errors["group"] < errors["tensor"]


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_columns_that_meet_large_activations_are_restored_better(
    kind: str, open_onnx: Open, digits: Digits, tmp_path: Path
) -> None:
    original, rows = open_onnx(kind), digits(kind)
    context = Context(scratch=tmp_path, calibration=digits(kind, train=True))
    plain, heeded = (
        quantized(open_onnx(kind), KmeansQuantize(bits=2, granularity="channel", sensitivity=found), context)
        for found in ("none", "activations")
    )
    exact = logits(original, rows)
    assert cosine(exact, logits(heeded, rows)) > cosine(exact, logits(plain, rows))


def test_zeros_of_a_pruned_model_stay_zero(open_onnx: Open, tmp_path: Path) -> None:
    model = as_compressible(open_onnx("mlp"))
    weight = model.weights()[0]
    matrix = model.matrix(weight)
    pruned = np.where(np.abs(matrix) < np.median(np.abs(matrix)), 0.0, matrix).astype(np.float32)
    model.replace([(weight, pruned)])
    made = quantized(model, KmeansQuantize(bits=3), Context(scratch=tmp_path))
    first = next(made.stored_layers())
    assert first.weights is not None
    assert first.nonzero <= np.count_nonzero(pruned) + 256
    assert np.count_nonzero(first.weights == 0.0) >= pruned.size // 2


def test_weights_that_are_not_numbers_are_named(open_onnx: Open, tmp_path: Path) -> None:
    model = as_compressible(open_onnx("mlp"))
    weight = model.weights()[1]
    matrix = model.matrix(weight).copy()
    matrix[3, 3] = np.nan
    model.replace([(weight, matrix)])
    with pytest.raises(NumericalFailure, match=weight.name):
        quantized(model, KmeansQuantize(), Context(scratch=tmp_path))


def test_weights_whose_codebooks_would_not_pay_stay_as_they_are(open_onnx: Open, tmp_path: Path) -> None:
    context = Context(scratch=tmp_path)
    made = quantized(open_onnx("mlp"), KmeansQuantize(bits=8, granularity="channel"), context)
    assert len(context.warnings) == 2
    assert all("stays float32: its codebooks would take more than its values do" in told for told in context.warnings)
    assert [weight.name for weight in made.weights()] == ["0.weight", "4.weight"]


def test_globs_that_leave_nothing_are_refused(open_onnx: Open, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedTechnique, match="No weight"):
        quantized(open_onnx("mlp"), KmeansQuantize(include=("nothing*",)), Context(scratch=tmp_path))


@pytest.fixture(scope="module")
def training_data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("rows")
    train = trained.write_npz("mlp", folder / "train.npz", train=True)
    return Data(train=DatasetFile(path=str(train), format=DatasetFormat.NPZ))


@pytest.mark.parametrize("model_format", [ModelFormat.ONNX, ModelFormat.PT2])
def test_trained_codebooks_regain_what_two_bits_lost(
    model_format: ModelFormat, training_data: Data, digits: Digits, tmp_path: Path
) -> None:
    write = trained.write_onnx if model_format is ModelFormat.ONNX else trained.write_pt2
    model = ModelFile(path=str(write("mlp", tmp_path / f"mlp.{model_format.value}")), format=model_format)
    untrained = attempt(tmp_path / "a", model, [KmeansQuantize(bits=1)], Data())
    recovery = RecoverFinetune(epochs=4.0, learning_rate=2e-3)
    learnt, again = (
        attempt(tmp_path / name, model, [KmeansQuantize(bits=1, recovery=recovery)], training_data) for name in "bc"
    )

    rows = digits("mlp")
    assert accuracy(_opened(learnt), rows) > accuracy(_opened(untrained), rows) + 0.05
    assert learnt.sha256 == again.sha256
    assert "1 of 3" not in learnt.made.steps[0].changed
    for layer in _opened(learnt).stored_layers():
        if layer.bits < 4:
            assert len(np.unique(layer.weights)) <= 2


@pytest.mark.parametrize("bits", [2, 4])
def test_scaled_codebooks_are_nearer_than_a_plain_one(
    bits: int, open_onnx: Open, digits: Digits, tmp_path: Path
) -> None:
    exact = logits(open_onnx("mlp"), digits("mlp"))
    scaled, plain = (
        quantized(open_onnx("mlp"), KmeansQuantize.model_validate({"bits": bits, **found}), Context(scratch=tmp_path))
        for found in ({"scale_group": 16}, {"granularity": "tensor"})
    )
    assert cosine(exact, logits(scaled, digits("mlp"))) > cosine(exact, logits(plain, digits("mlp")))


def test_an_exported_program_restores_scaled_codebooks(digits: Digits, tmp_path: Path) -> None:
    model = ModelFile(path=str(trained.write_pt2("mlp", tmp_path / "mlp.pt2")), format=ModelFormat.PT2)
    exact = logits(family(ModelFormat.PT2).open_model(Path(model.path), Context(scratch=tmp_path)), digits("mlp"))
    scaled, plain = (
        attempt(tmp_path / name, model, [KmeansQuantize.model_validate({"bits": 2, **found})], Data())
        for name, found in (("a", {"scale_group": 16}), ("b", {"granularity": "tensor"}))
    )
    nearness = [cosine(exact, logits(_opened(made), digits("mlp"))) for made in (scaled, plain)]
    assert nearness[0] > nearness[1]
    assert all(layer.bits < 3.3 for layer in _opened(scaled).stored_layers())


def test_scales_go_with_one_codebook_for_each_weight() -> None:
    with pytest.raises(ValidationError, match="one codebook per weight"):
        KmeansQuantize(scale_group=16, granularity="channel")


def test_only_one_codebook_for_each_weight_learns() -> None:
    with pytest.raises(ValidationError, match="leave granularity at tensor"):
        KmeansQuantize(granularity="channel", recovery=RecoverFinetune())


@pytest.mark.parametrize("model_format", [ModelFormat.SAFETENSORS, ModelFormat.TORCH_STATE_DICT])
def test_bare_tensors_neither_run_nor_learn(model_format: ModelFormat) -> None:
    assert KmeansQuantize(sensitivity="activations").refusal(model_format)
    assert KmeansQuantize(recovery=RecoverFinetune()).refusal(model_format)
    assert KmeansQuantize().refusal(model_format) is None


def test_a_state_dict_is_restored_from_its_codes(tmp_path: Path) -> None:
    state = trained.trained("mlp").state_dict()
    torch.save(state, tmp_path / "mlp.pth")
    model = ModelFile(path=str(tmp_path / "mlp.pth"), format=ModelFormat.TORCH_STATE_DICT)
    made = attempt(tmp_path / "a", model, [KmeansQuantize(bits=4)], Data())
    assert made.artifact.stat().st_size < 0.2 * (tmp_path / "mlp.pth").stat().st_size
    layers = {layer.name: layer for layer in _opened(made).stored_layers()}
    restored = next(layer.weights for name, layer in layers.items() if layer.parameters == 256 * 128)
    assert isinstance(restored, WeightPieces)
    assert cosine(np.concatenate([*restored.read()]), state["2.weight"].numpy()) > 0.99


def _opened(made: Attempt) -> OnnxModel:
    return family(made.made.format).open_model(made.artifact, Context(scratch=made.folder))
