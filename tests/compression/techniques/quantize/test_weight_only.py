from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests import trained
from tests.compression.judging import accuracy, cosine, logits, run_in_stock_onnxruntime
from tests.compression.test_contract import tiny_bert, tokens
from workers.compression.context import Context
from workers.compression.data import Dataset, first_feeds, open_dataset
from workers.compression.engine import perform
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.families.weights import CompressibleModel, as_compressible
from workers.compression.registry import family, handler_for
from workers.compression.specs.errors import NumericalFailure, UnsupportedTechnique
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import DatasetFile, InspectModel
from workers.compression.specs.steps.quantize_weights import WeightOnlyQuantize

Open = Callable[[str], OnnxModel]
Digits = Callable[..., Dataset]


def quantized(model: CompressibleModel, context: Context, **fields: object) -> CompressibleModel:
    handler = handler_for(WeightOnlyQuantize, model.format)
    return as_compressible(handler(model, WeightOnlyQuantize(**fields), context))


@pytest.mark.parametrize("algorithm", ["rtn", "hqq", "gptq", "awq"])
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_networks_keep_their_accuracy_in_four_bits(
    kind: str, algorithm: str, open_onnx: Open, digits: Digits, tmp_path: Path
) -> None:
    original, rows = open_onnx(kind), digits(kind)
    context = Context(scratch=tmp_path, calibration=digits(kind, train=True))

    compressed = quantized(open_onnx(kind), context, algorithm=algorithm)

    assert compressed.size_bytes() < 0.25 * original.size_bytes()
    assert accuracy(compressed, rows) > accuracy(original, rows) - 0.015
    assert cosine(logits(original, rows), logits(compressed, rows)) > 0.995
    assert context.warnings == []
    assert f"4-bit integers ({algorithm}, affine), a scale per group of 32" in context.changes[0]


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_calibrated_algorithms_stay_closer_to_the_original_in_few_bits(
    kind: str, open_onnx: Open, digits: Digits, tmp_path: Path
) -> None:
    exact, rows = logits(open_onnx(kind), digits(kind)), digits(kind)
    context = Context(scratch=tmp_path, calibration=digits(kind, train=True))

    lost = {
        algorithm: 1.0 - cosine(exact, logits(quantized(open_onnx(kind), context, algorithm=algorithm, bits=3), rows))
        for algorithm in ("rtn", "awq", "gptq")
    }

    assert lost["awq"] < lost["rtn"]
    assert lost["gptq"] < 0.7 * lost["rtn"]


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group", "block"])
@pytest.mark.parametrize("scheme", ["affine", "symmetric", "minmax"])
def test_stock_onnxruntime_computes_what_the_integers_stand_for(
    scheme: str, granularity: str, open_onnx: Open, digits: Digits, tmp_path: Path
) -> None:
    original = open_onnx("mlp")
    feeds = first_feeds(digits("mlp"), original.inputs, None, 16)
    compressed = quantized(open_onnx("mlp"), Context(scratch=tmp_path), scheme=scheme, granularity=granularity, bits=8)
    compressed.save(tmp_path / "small.onnx")

    output = run_in_stock_onnxruntime(tmp_path / "small.onnx", feeds, tmp_path)

    assert cosine(output, original.run(feeds)[0]) > 0.999
    np.testing.assert_allclose(output, compressed.run(feeds)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["hqq", "gptq"])
def test_exported_programs_keep_their_accuracy_too(algorithm: str, digits: Digits, tmp_path: Path) -> None:
    path = trained.write_pt2("cnn", tmp_path / "cnn.pt2")
    original, model = (
        as_compressible(family(ModelFormat.PT2).open_model(path, Context(scratch=tmp_path))) for _ in range(2)
    )
    rows = digits("cnn").limited(256)

    compressed = quantized(model, Context(scratch=tmp_path, calibration=digits("cnn", train=True)), algorithm=algorithm)

    assert cosine(logits(original, rows), logits(compressed, rows)) > 0.995
    assert accuracy(compressed, rows) > accuracy(original, rows) - 0.015


def test_transformers_are_watched_and_their_tables_rounded(tmp_path: Path) -> None:
    upload = tiny_bert(tmp_path / "bert.zip")
    inspection = perform(InspectModel(path=str(upload)), tmp_path, Context(scratch=tmp_path))
    path = tmp_path / inspection.clean if inspection.clean else upload
    data = open_dataset(DatasetFile(path=str(tokens(tmp_path / "tokens.npz")), format=DatasetFormat.NPZ))
    opened = [
        as_compressible(family(ModelFormat.HUGGINGFACE).open_model(path, Context(scratch=tmp_path))) for _ in range(3)
    ]
    context = Context(scratch=tmp_path, calibration=data)

    compensated = quantized(opened[0], context, algorithm="gptq", bits=4)
    nearest = quantized(opened[1], context, algorithm="rtn", bits=4)

    exact = logits(opened[2], data)
    assert np.square(logits(compensated, data) - exact).sum() < np.square(logits(nearest, data) - exact).sum()
    assert context.warnings == []


def test_a_range_that_awq_would_not_heed_is_refused() -> None:
    with pytest.raises(ValueError, match="leave range at mse"):
        WeightOnlyQuantize(algorithm="awq", range="percentile")


def test_globs_and_tables_that_are_left_out_stay_as_they_are(open_onnx: Open, tmp_path: Path) -> None:
    model = open_onnx("mlp")
    first, second, *_ = model.weights()
    before = model.matrix(first).copy()

    quantized(model, Context(scratch=tmp_path), exclude=(first.name,))

    kept = {weight.name for weight in model.weights()}
    assert first.name in kept
    assert second.name not in kept
    np.testing.assert_array_equal(model.matrix(first), before)
    with pytest.raises(UnsupportedTechnique, match="is selected"):
        quantized(open_onnx("mlp"), Context(scratch=tmp_path), include=("no such layer",))


def test_weights_that_are_not_finite_are_named(open_onnx: Open, tmp_path: Path) -> None:
    model = open_onnx("mlp")
    weight = model.weights()[1]
    values = model.matrix(weight).copy()
    values[3, 4] = np.nan
    model.replace([(weight, values)])

    with pytest.raises(NumericalFailure, match=weight.name):
        quantized(model, Context(scratch=tmp_path))


def test_layers_that_only_ever_see_zeros_are_rounded_to_nearest_and_named(open_onnx: Open, tmp_path: Path) -> None:
    np.savez(tmp_path / "black.npz", input=np.zeros((16, 64), np.float32))
    black = open_dataset(DatasetFile(path=str(tmp_path / "black.npz"), format=DatasetFormat.NPZ))
    context = Context(scratch=tmp_path, calibration=black)

    compressed = quantized(open_onnx("mlp"), context, algorithm="gptq")

    assert len(context.warnings) == 1
    assert "rounded to nearest" in context.warnings[0]
    assert np.isfinite(logits(compressed, black)).all()
