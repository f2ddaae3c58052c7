from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.compression.judging import logits
from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.model import Model
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.quantization.narrow_floats import DTYPES, rounded, scales_for
from workers.compression.specs.errors import NumericalFailure, UnsupportedTechnique
from workers.compression.specs.steps.quantize import BFloat16Quantize, Float8Quantize
from workers.compression.techniques.quantize.bfloat16.onnx import store_in_bfloat16
from workers.compression.techniques.quantize.float8.onnx import store_in_float8

Open = Callable[[str], OnnxModel]
Digits = Callable[..., Dataset]
Compress = Callable[[OnnxModel, Context], Model]


def as_bfloat16(model: OnnxModel, context: Context) -> Model:
    return store_in_bfloat16(model, BFloat16Quantize(), context)


def as_e4m3(model: OnnxModel, context: Context) -> Model:
    return store_in_float8(model, Float8Quantize(), context)


def as_e5m2(model: OnnxModel, context: Context) -> Model:
    return store_in_float8(model, Float8Quantize(variant="e5m2", granularity="tensor"), context)


def with_mask(weights: np.ndarray, mask: np.ndarray) -> OnnxModel:
    """A product, to which a stored mask is added."""
    rows, columns = weights.shape
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"], name="product"),
            helper.make_node("Add", ["product", "mask"], ["y"], name="mask"),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", columns])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(mask, "mask")],
    )
    return OnnxModel(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7))


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
@pytest.mark.parametrize(
    ("compress", "share", "agreement"), [(as_bfloat16, 0.56, 0.99), (as_e4m3, 0.33, 0.98), (as_e5m2, 0.33, 0.97)]
)
def test_files_shrink_and_classes_stay(
    kind: str,
    compress: Compress,
    share: float,
    agreement: float,
    open_onnx: Open,
    digits: Digits,
    tmp_path: Path,
) -> None:
    original, rows = open_onnx(kind), digits(kind)

    compressed = compress(open_onnx(kind), Context(scratch=tmp_path))

    assert compressed.size_bytes() < share * original.size_bytes()
    same = logits(compressed, rows).argmax(axis=1) == logits(original, rows).argmax(axis=1)
    assert same.mean() >= agreement


def test_bfloat16_computes_with_the_nearest_values_at_any_magnitude(tmp_path: Path) -> None:
    largest = np.finfo(np.float32).max
    weights = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32) * np.float32(1e30)
    mask = np.where(np.arange(32 * 4).reshape(4, 32) % 3 == 0, -largest, -np.inf).astype(np.float32)

    compressed = as_bfloat16(with_mask(weights, mask), Context(scratch=tmp_path))

    eye = np.eye(64, dtype=np.float32)
    expected = weights.astype(DTYPES["bfloat16"]).astype(np.float32)
    without_mask = as_bfloat16(with_mask(weights, np.zeros((1, 32), np.float32)), Context(scratch=tmp_path))
    np.testing.assert_array_equal(without_mask.run({"x": eye})[0], expected)
    masked = compressed.run({"x": np.zeros((4, 64), np.float32)})[0]
    np.testing.assert_array_equal(np.isinf(masked), np.isinf(mask))


def test_float8_is_the_nearest_of_the_types_numbers_and_uses_its_range() -> None:
    matrix = np.random.default_rng(0).normal(size=(16, 64)).astype(np.float32)
    numbers = np.arange(256, dtype=np.uint8).view(DTYPES["float8_e4m3fn"]).astype(np.float32)
    scale = scales_for(matrix, "float8_e4m3fn", "channel")
    stored = rounded(matrix / scale, "float8_e4m3fn")

    nearest = np.abs(numbers[np.isfinite(numbers)][:, None, None] - matrix / scale).min(axis=0)
    np.testing.assert_allclose(np.abs(stored - matrix / scale), nearest, atol=1e-4)
    np.testing.assert_array_equal(np.abs(stored).max(axis=1), 448.0)
    assert scales_for(np.zeros((2, 4), np.float32), "float8_e5m2", "channel").tolist() == [[1.0], [1.0]]


def test_float8_weights_have_the_types_name_where_onnx_has_the_type(open_onnx: Open, tmp_path: Path) -> None:
    older = with_mask(np.ones((64, 32), np.float32), np.zeros((1, 32), np.float32))
    newer = open_onnx("cnn")
    for model, typed in ((older, False), (newer, True)):
        as_e4m3(model, Context(scratch=tmp_path))
        assert (TensorProto.FLOAT8E4M3FN in {tensor.data_type for tensor in model.proto.graph.initializer}) is typed


@pytest.mark.parametrize("compress", [as_bfloat16, as_e4m3])
def test_a_broken_weight_is_named(compress: Compress, tmp_path: Path) -> None:
    weights = np.ones((64, 32), np.float32)
    weights[3, 4] = np.nan
    with pytest.raises(NumericalFailure, match="w of product"):
        compress(with_mask(weights, np.zeros((1, 32), np.float32)), Context(scratch=tmp_path))


def test_globs_that_leave_nothing_are_refused(open_onnx: Open, tmp_path: Path) -> None:
    for store, spec in ((store_in_bfloat16, BFloat16Quantize), (store_in_float8, Float8Quantize)):
        with pytest.raises(UnsupportedTechnique, match="selected"):
            store(open_onnx("mlp"), spec(include=("nowhere",)), Context(scratch=tmp_path))
