"""Whatever form a weight is stored in and whatever reads it, onnxruntime computes with exactly the form's values."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from tests.compression.families.onnx.form_graphs import (
    CASES,
    Feeds,
    batched_product,
    check,
    copied,
    gemm,
    large_gemm,
    large_product,
    large_scaled_gemm,
    product,
    table,
    tied_table,
)
from workers.compression.families.onnx import unpacking
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.families.onnx.training.adapter import trainable_model
from workers.compression.families.weights import FloatForm, Weight, WeightForm
from workers.compression.quantization.blocks import Blocks, Granularity
from workers.compression.quantization.narrow_floats import DTYPES, FloatType, rounded, scales_for
from workers.compression.quantization.uniform import Grid, Parameters, Scheme, UniformWeight, quantize
from workers.compression.specs.errors import UnsupportedOperator

SCHEMES: tuple[Scheme, ...] = ("affine", "symmetric", "minmax")
GRANULARITIES: tuple[Granularity, ...] = ("tensor", "channel", "group", "block")
UNIFORM = [
    (2 + count % 7, scheme, granularity)
    for count, (scheme, granularity) in enumerate(itertools.product(SCHEMES, GRANULARITIES))
]
FLOATS: list[tuple[FloatType, str | None]] = list(itertools.product(DTYPES, (None, "tensor", "channel")))
Form = Callable[[np.ndarray], WeightForm]


def uniform(bits: int, scheme: Scheme, granularity: Granularity) -> Form:
    """Integers, 16 to a group."""
    return lambda matrix: quantize(
        matrix, Grid.of(scheme, bits), Blocks.of_matrix(matrix.shape, granularity, 16), scheme
    )


def floats(dtype: FloatType, granularity: str | None) -> Form:
    """Narrower floats, scaled or not."""

    def form(matrix: np.ndarray) -> FloatForm:
        scale = scales_for(matrix, dtype, granularity) if granularity else None
        return FloatForm(rounded(matrix if scale is None else matrix / scale, dtype), dtype, scale)

    return form


def stored(model: OnnxModel, form: Form) -> tuple[OnnxModel, OnnxModel, list[Weight]]:
    """The model with its weights in a form, and a float model with the form's values."""
    rewritten, expected = copied(model.proto), copied(model.proto)
    forms = [(weight, form(model.matrix(weight))) for weight in model.weights()]
    expected.replace((weight, made.restored()) for weight, made in forms)
    rewritten.store(iter(forms))
    return rewritten, expected, [weight for weight, _ in forms]


def assert_same(model: OnnxModel, feeds: Feeds, form: Form) -> None:
    rewritten, expected, _ = stored(model, form)
    check(rewritten)
    np.testing.assert_array_equal(rewritten.run(feeds)[0], expected.run(feeds)[0])
    for ours, reference in zip(rewritten.stored_layers(), expected.stored_layers(), strict=True):
        assert (ours.name, ours.op, ours.parameters) == (reference.name, reference.op, reference.parameters)
        np.testing.assert_array_equal(ours.weights, reference.weights)


@pytest.mark.parametrize("name", CASES)
def test_integers_compute_to_the_last_bit_what_they_stand_for(name: str) -> None:
    proto, feeds = CASES[name]()
    for choice in UNIFORM:
        assert_same(OnnxModel(proto), feeds, uniform(*choice))


@pytest.mark.parametrize("case", [product, batched_product, gemm])
def test_weights_are_restored_in_pieces_where_a_whole_one_would_be_too_large(
    case: Callable[[], tuple[onnx.ModelProto, Feeds]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "MAX_INTERMEDIATE_BYTES", 2048)
    proto, feeds = case()
    for choice in UNIFORM:
        assert_same(OnnxModel(proto), feeds, uniform(*choice))
        rewritten, _, _ = stored(OnnxModel(proto), uniform(*choice))
        operators = [node.op_type for node in rewritten.proto.graph.node]
        assert "Concat" in operators


@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize("name", CASES)
def test_narrow_floats_compute_to_the_last_bit_what_they_stand_for(name: str, opset: int) -> None:
    proto, feeds = CASES[name]()
    proto.opset_import[0].version = opset
    proto.ir_version = 10
    for choice in FLOATS:
        assert_same(OnnxModel(proto), feeds, floats(*choice))


@pytest.mark.parametrize("name", [name for name in CASES if "table" not in name])
@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_ALL"])
def test_nothing_of_the_restoring_is_left_to_run(name: str, level: str, tmp_path: Path) -> None:
    proto, _ = CASES[name]()
    expected = _operators_after_loading(OnnxModel(proto), level, tmp_path)
    for form in (uniform(3, "minmax", "group"), uniform(4, "affine", "block"), floats("float8_e4m3fn", "channel")):
        rewritten, _, _ = stored(OnnxModel(proto), form)
        assert _operators_after_loading(rewritten, level, tmp_path) == expected


def test_a_table_stays_packed_when_it_is_loaded(tmp_path: Path) -> None:
    rewritten, _, (weight,) = stored(OnnxModel(table()[0]), uniform(4, "affine", "channel"))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(rewritten.serialized(), options)
    loaded = onnx.load(tmp_path / "optimized.onnx").graph.initializer
    assert max(int(np.prod(tensor.dims)) for tensor in loaded) <= weight.size * 4 // 8 + weight.shape[0]


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("case", [product, table, tied_table])
def test_files_take_the_bits_that_reports_say(case: Callable[[], tuple[onnx.ModelProto, Feeds]], bits: int) -> None:
    model = OnnxModel(case()[0])
    rewritten, _, (weight,) = stored(model, uniform(bits, "symmetric", "channel"))
    layer = next(iter(rewritten.stored_layers()))
    rows, columns = weight.matrix_shape
    assert bits <= layer.bits <= bits + 32.0 * (rows + 16) / weight.size + 0.2 * (columns % 8 > 0) * bits
    tensors = sum(len(tensor.raw_data) for tensor in rewritten.proto.graph.initializer)
    assert layer.bytes <= tensors <= layer.bytes + 200


def test_scales_that_half_precision_holds_take_two_bytes() -> None:
    model = OnnxModel(product()[0])

    def halved(matrix: np.ndarray) -> UniformWeight:
        form = quantize(matrix, Grid.of("symmetric", 4), Blocks.of_matrix(matrix.shape, "group", 16))
        scale = form.parameters.scale.astype(np.float16).astype(np.float32)
        return UniformWeight(form.integers, Parameters(scale), form.grid, form.blocks)

    assert_same(model, product()[1], halved)
    sizes = [
        next(iter(stored(model, form)[0].stored_layers())).bytes for form in (halved, uniform(4, "symmetric", "group"))
    ]
    assert sizes[1] - sizes[0] == 2 * 24 * 4


@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
@pytest.mark.parametrize("case", [large_product, large_gemm])
def test_large_products_run_on_packed_groups(case: Callable[[], tuple[onnx.ModelProto, Feeds]], scheme: Scheme) -> None:
    proto, feeds = case()
    rewritten, expected, (weight,) = stored(OnnxModel(proto), uniform(4, scheme, "group"))
    check(rewritten)
    operators = [node.op_type for node in rewritten.proto.graph.node]
    assert operators == ["MatMulNBits", *(["Add"] if case is large_gemm else [])]
    outputs, reference = rewritten.run(feeds)[0], expected.run(feeds)[0]
    assert np.linalg.norm(outputs - reference) < 0.01 * np.linalg.norm(reference)
    (ours,) = (layer for layer in rewritten.stored_layers() if layer.name == "layer")
    (theirs,) = (layer for layer in expected.stored_layers() if layer.name == "layer")
    assert ours.parameters == weight.size
    assert ours.bits < 4 + 32 / 16 + 4 / 16 + 0.1
    np.testing.assert_array_equal(ours.weights, theirs.weights)
    assert rewritten.macs(feeds) == expected.macs(feeds)


@pytest.mark.parametrize(
    ("case", "choice"),
    [
        (large_scaled_gemm, (4, "affine", "group")),
        (large_gemm, (4, "minmax", "group")),
        (large_gemm, (8, "affine", "group")),
        (large_gemm, (4, "affine", "channel")),
    ],
)
def test_what_packed_products_do_not_serve_is_folded_exactly(
    case: Callable[[], tuple[onnx.ModelProto, Feeds]], choice: tuple[int, Scheme, Granularity]
) -> None:
    proto, feeds = case()
    assert_same(OnnxModel(proto), feeds, uniform(*choice))


def test_stored_weights_are_no_float_weights_any_more_and_do_not_learn() -> None:
    for form in (uniform(4, "affine", "group"), uniform(8, "symmetric", "channel"), floats("float8_e5m2", "channel")):
        for case in (product, tied_table):
            rewritten, _, _ = stored(OnnxModel(case()[0]), form)
            assert rewritten.weights() == ()
            with pytest.raises(UnsupportedOperator, match="w_"):
                trainable_model(rewritten).trainable()


def test_weights_are_found_behind_chains_of_any_length() -> None:
    proto, _ = product()
    steps = [helper.make_node("Identity", [f"w{count}"], [f"w{count + 1}"]) for count in range(2000)]
    proto.graph.initializer[0].name = "w0"
    proto.graph.node[0].input[1] = "w2000"
    nodes = [*steps, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    model = OnnxModel(proto)
    assert [weight.name for weight in model.weights()] == ["w0"]
    assert [layer.parameters for layer in model.stored_layers()] == [50 * 24]


def test_a_weight_that_onnxruntime_would_not_fold_stays_float() -> None:
    model = OnnxModel(product()[0])
    (weight,) = model.weights()
    form = uniform(4, "affine", "tensor")(model.matrix(weight))
    assert model.why_not(weight, form) is None
    large = Weight("w", "layer", (1 << 15, 1 << 14), "float32", "linear", (1, 0))
    assert "1 GiB" in str(model.why_not(large, form))


def _operators_after_loading(model: OnnxModel, level: str, folder: Path) -> list[str]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(model.serialized(), options)
    found: list[str] = []
    waiting = [onnx.load(folder / "optimized.onnx").graph]
    while waiting:
        graph = waiting.pop()
        found += [node.op_type for node in graph.node]
        waiting += [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return sorted(found)
